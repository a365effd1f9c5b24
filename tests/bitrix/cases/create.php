<?php

declare(strict_types=1);

use Bitrix\Main\Application;
use Bitrix\Main\DB\Connection;
use Bitrix\Sale\PaySystem\Manager;

test('the payment page makes one session, with the sum as a string, the basket and the customer', function (string $dir): void {
    $world = new World($dir);
    $result = $world->pay();
    same([], $result->getErrorMessages());
    same('https://bank.example/pay/s-1', $result->getPaymentUrl());
    contains('https://bank.example/pay/s-1', $result->getTemplate());
    [$request] = $world->gate->requests('/installment/create');
    $body = json_decode($request['body'], true);
    same([
        'order_ref' => '1', 'amount' => '149.90', 'currency' => 'BYN', 'term' => 12,
        'items' => [
            ['name' => 'Чайник', 'qty' => '2', 'price' => '49.90'],
            ['name' => 'Чашка', 'qty' => '1', 'price' => '40.10'],
            ['name' => 'Delivery', 'qty' => '1', 'price' => '10.00'],
        ],
        'customer' => ['name' => 'Иван Иванов', 'phone' => '+375290000000', 'email' => 'ivan@example.by'],
        'success_url' => 'https://shop.example/personal/order/payment/?ORDER_ID=1',
        'fail_url' => 'https://shop.example/personal/order/payment/?ORDER_ID=1',
        'callback_url' => 'https://shop.example/bank/callback',
    ], $body);
    same('create-1-0', $request['headers']['idempotency-key']);
    same('application/json', $request['headers']['content-type']);
    same(false, isset($request['headers']['priorgate-repeat']));
    same(['s-1', 'N'], [$world->field('PS_INVOICE_ID'), $world->field('PAID')]);
});

test('the session is reused at redisplay while it lives, and is another after that', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    same('https://bank.example/pay/s-1', $world->pay()->getPaymentUrl());
    same(1, count($world->gate->requests('/installment/create')), 'no second session');
    // It has lived; the next one has a key of its own, and is meant.
    Application::getConnection()->query('UPDATE b_priorgate_session SET CREATED_AT = CREATED_AT - 3600');
    same('https://bank.example/pay/s-2', $world->pay()->getPaymentUrl());
    $second = $world->gate->requests('/installment/create')[1]['headers'];
    same(['create-1-1', 'intended'], [$second['idempotency-key'], $second['priorgate-repeat']]);
    same('s-2', $world->field('PS_INVOICE_ID'));
    // The bank has said no: another try is another session.
    $world->deliver(['status' => 'REJECTED'] + World::approved('s-2'));
    same('https://bank.example/pay/s-3', $world->pay()->getPaymentUrl());
    // Another sum is another session.
    Application::getConnection()->query("UPDATE b_sale_order_payment SET SUM = '99.80'");
    same('https://bank.example/pay/s-4', $world->pay()->getPaymentUrl());
    $body = json_decode($world->gate->requests('/installment/create')[3]['body'], true);
    same([['name' => 'Order 1/1', 'qty' => '1', 'price' => '99.80']], $body['items'], 'what does not add up is one line');
});

test('each payment of an order has its own session', function (string $dir): void {
    $world = new World($dir, ['100.00', '49.90']);
    same('https://bank.example/pay/s-1', $world->pay(1)->getPaymentUrl());
    same('https://bank.example/pay/s-2', $world->pay(2)->getPaymentUrl());
    $bodies = array_map(static fn ($one) => json_decode($one['body'], true), $world->gate->requests('/installment/create'));
    same([['1', '100.00'], ['2', '49.90']], array_map(static fn ($body) => [$body['order_ref'], $body['amount']], $bodies));
    $world->deliver(World::approved('s-2', '49.90') + [], ['body' => json_encode(
        ['session_id' => 's-2', 'order_ref' => '2', 'status' => 'APPROVED', 'amount' => '49.90', 'currency' => 'BYN']
    )]);
    same(['N', 'Y'], [$world->field('PAID', 1), $world->field('PAID', 2)]);
});

test('not sent and unknown are two messages, and an unknown is repeated under the next attempt', function (string $dir): void {
    $world = new World($dir);
    $world->gate->control(['next' => [
        ['problem' => ['status' => 502, 'code' => 'bank_unreachable', 'outcome' => 'not_sent']],
        ['problem' => ['status' => 502, 'code' => 'bank_unreachable', 'outcome' => 'not_sent']],
        ['lose' => true],
    ]]);
    $not_sent = $world->pay()->getBuyerErrorMessages();
    contains('Nothing was sent', $not_sent[0]);
    same($not_sent, $world->pay()->getBuyerErrorMessages());
    $unknown = $world->pay()->getBuyerErrorMessages();
    contains('did not arrive', $unknown[0]);
    same('https://bank.example/pay/s-2', $world->pay()->getPaymentUrl());
    $keys = array_map(static fn ($one) => $one['headers']['idempotency-key'], $world->gate->requests('/installment/create'));
    same(['create-1-0', 'create-1-0', 'create-1-0', 'create-1-1'], $keys);
});

test('an answer that PHP never read is asked for again under its key; another basket is another attempt', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    // As if PHP had died right after the answer.
    foreach (['b_priorgate_session', 'b_priorgate_attempt'] as $table) {
        Application::getConnection()->query("DELETE FROM $table");
    }
    same('https://bank.example/pay/s-1', $world->pay()->getPaymentUrl());
    foreach (['b_priorgate_session', 'b_priorgate_attempt'] as $table) {
        Application::getConnection()->query("DELETE FROM $table");
    }
    Application::getConnection()->query("UPDATE b_sale_order_payment SET SUM = '99.80'");
    same('https://bank.example/pay/s-2', $world->pay()->getPaymentUrl());
});

test('the bank\'s no is told without its text', function (string $dir): void {
    $world = new World($dir);
    $no = ['status' => 422, 'json' => ['error' => ['code' => 'term', 'message' => 'Иван may not']]];
    $world->gate->control(['next' => [['bank' => $no], ['bank' => ['status' => 429]],
        ['bank' => ['status' => 200, 'json' => ['session_id' => '../x', 'payment_url' => 'https://bank.example/']]],
        ['bank' => ['status' => 200, 'json' => ['session_id' => 's-9', 'payment_url' => 'http://bank.example/']]],
        ['bank' => ['status' => 200, 'json' => ['session_id' => 's-9', 'payment_url' => 'javascript:alert(1)']]]]]);
    $messages = [];
    for ($try = 0; $try < 5; $try++) {
        $messages[] = $world->pay()->getBuyerErrorMessages()[0];
    }
    contains('did not accept', $messages[0]);
    contains('Nothing was sent', $messages[1]);
    foreach ([2, 3, 4] as $try) {
        contains('was not understood', $messages[$try]);
    }
    same(false, str_contains(implode($messages), 'Иван'));
    same('', $world->field('PS_INVOICE_ID'));
});

test('a tab that comes while another one works is told to reload, and gets that session', function (string $dir): void {
    $world = new World($dir);
    // The other tab ends a second from now.
    $other = proc_open([PHP_BINARY, '-r', '$file = fopen($argv[1], "c"); flock($file, LOCK_EX); echo "ok\n"; sleep(1);',
        "$dir/shop.db." . md5('priorgate-order-1') . '.lock'], [1 => ['pipe', 'w']], $pipes);
    same("ok\n", fgets($pipes[1]));
    $started = microtime(true);
    same('https://bank.example/pay/s-1', $world->pay()->getPaymentUrl());
    same(true, microtime(true) - $started > 0.3, 'it has waited');
    proc_close($other);
});

test('what is paid, refunded, in another currency or in fractions gets no session', function (string $dir): void {
    $world = new World($dir);
    foreach (
        [["PAID = 'Y'", 'already'], ["PAID = 'N', IS_RETURN = 'P'", 'refunded'],
            ["IS_RETURN = 'N', CURRENCY = 'USD'", 'currency'], ["CURRENCY = 'BYN', SUM = '10.0050'", 'sum']] as [$set, $said]
    ) {
        Application::getConnection()->query("UPDATE b_sale_order_payment SET $set");
        contains($said, $world->pay()->getBuyerErrorMessages()[0]);
    }
    same([], $world->gate->requests('/installment/create'));
});

test('the test bank and the live bank stand side by side', function (string $dir): void {
    $world = new World($dir);
    $test = new Gate($dir, "unix:$dir/test.sock");
    Manager::$values['PRIORGATE_SOCKET_TEST'] = $test->address();
    Manager::$values['PS_IS_TEST'] = 'Y';
    contains('not real', $world->pay()->getTemplate());
    same([1, 0], [count($test->requests('/installment/create')), count($world->gate->requests('/installment/create'))]);
    // The live bank's key does not speak of a session of the test bank, nor the other way round.
    same(false, $world->deliver(World::approved('s-1')));
    same(true, $world->deliver(World::approved('s-1'), ['secret' => World::TEST_SECRET]));
});

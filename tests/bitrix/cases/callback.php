<?php

declare(strict_types=1);

use Bitrix\Main\Application;
use Bitrix\Main\DB\Connection;
use Bitrix\Sale\Order;
use Bitrix\Sale\PaySystem\Logger;
use Bitrix\Sale\PaySystem\Manager;

test('APPROVED pays, once, and is acknowledged each time', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    same(['Y', 'APPROVED', '149.90', 'BYN'], array_map($world->field(...), ['PS_STATUS', 'PS_STATUS_CODE', 'PS_SUM', 'PS_CURRENCY']));
    same(true, $world->deliver(World::approved($session)));
    same(true, $world->deliver(World::approved($session)));
    same([1, 0], [$world->receipts('Y'), $world->receipts('N')], 'one receipt');
});

test('what priorgate has not signed is not even looked at', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    $event = World::approved('s-1');
    foreach (
        [
            'no signature' => ['signature' => ''],
            'garbage' => ['signature' => 'v1,AAAA'],
            'another secret' => ['secret' => 'whsec_' . base64_encode(str_repeat('x', 32))],
            'another version' => ['signature' => 'v2,' . base64_encode(random_bytes(32))],
            'a changed body' => ['sent' => json_encode(['amount' => '1.00'] + $event)],
            'a changed byte' => ['sent' => json_encode($event) . ' '],
            'stale' => ['time' => time() - 301],
            'from the future' => ['time' => time() + 301],
            'no time' => ['time' => 0],
            'an odd id' => ['id' => "x\ny"],
            'not for us' => ['query' => []],
            'for another pay system' => ['query' => ['BX_HANDLER' => 'PRIORGATE', 'BX_PAYSYSTEM_CODE' => '8']],
        ] as $what => $with
    ) {
        same(false, $world->deliver($event, $with), $what);
        same(['N', 'N'], [$world->field('PAID'), $world->field('MARKED')], $what);
    }
    // One of several will do: a rotation.
    file_put_contents("$dir/new.secret", 'whsec_' . base64_encode(str_repeat('n', 32)));
    chmod("$dir/new.secret", 0440);
    Manager::$values['PRIORGATE_SECRET_FILE_LIVE'] = "$dir/new.secret, $dir/live.secret";
    same(true, $world->deliver($event));
    same('Y', $world->field('PAID'));
});

test('without a secret that only PHP may read nothing verifies', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    chmod("$dir/live.secret", 0444);
    same(false, $world->deliver(World::approved('s-1')), 'open to everybody');
    contains('chmod 0440', implode("\n", Logger::$errors));
    copy("$dir/live.secret", "$dir/www/live.secret");
    chmod("$dir/www/live.secret", 0440);
    foreach (["$dir/www/live.secret" => 'web root', "$dir/none" => 'no such file', 'live.secret' => 'absolute', '' => ''] as $file => $said) {
        Manager::$values['PRIORGATE_SECRET_FILE_LIVE'] = $file;
        Logger::$errors = [];
        same(false, $world->deliver(World::approved('s-1')), $file);
        contains($said, implode("\n", Logger::$errors));
    }
    // One secret for both banks would let the test bank pay live orders.
    chmod("$dir/live.secret", 0440);
    Manager::$values['PRIORGATE_SECRET_FILE_LIVE'] = Manager::$values['PRIORGATE_SECRET_FILE_TEST'] = "$dir/live.secret";
    same(false, $world->deliver(World::approved('s-1')));
});

test('the vector of the Standard Webhooks specification is met', function (): void {
    $verified = Sale\Handlers\PaySystem\Priorgate\Delivery::verify(
        ['live' => [World::SECRET]],
        'msg_p5jXN8AQM9LWM0D4loKWxJek',
        '1614265330',
        'v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
        '{"test": 2432232314}',
        1614265330 + 300,
    );
    same('live', $verified?->bank);
});

test('the sum, the currency and the payment are those of the signed body, and must agree', function (string $dir): void {
    $world = new World($dir, ['149.90', '149.90']);
    $world->pay(1);
    $event = World::approved('s-1');
    foreach (
        [
            'sum' => ['amount' => '1.00'], 'no sum' => ['amount' => null], 'a sum that is none' => ['amount' => '149.905'],
            'currency' => ['currency' => 'USD'], 'no currency' => ['currency' => null],
            'another payment' => ['order_ref' => '2'], 'an unknown word' => ['status' => 'PAID'],
            'no session' => ['session_id' => null], 'an odd session' => ['session_id' => "s-1'"],
        ] as $what => $change
    ) {
        same(false, $world->deliver($change + $event), $what);
        same(['N', 'N'], [$world->field('PAID', 1), $world->field('PAID', 2)], $what);
    }
    contains('Nothing was changed', $world->field('REASON_MARKED'));
    // The query is unsigned: it says nothing of the payment.
    same(true, $world->deliver($event, ['query' => ['BX_HANDLER' => 'PRIORGATE', 'paymentId' => '2', 'ORDER_ID' => '9']]));
    same(['Y', 'N'], [$world->field('PAID', 1), $world->field('PAID', 2)]);
    // A number is as good as a string.
    $world->pay(2);
    same(true, $world->deliver(['session_id' => 's-2', 'order_ref' => '2', 'amount' => 149.9] + $event));
});

test('a payment that has another sum or pay system by now is not paid', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    Application::getConnection()->query("UPDATE b_sale_order_payment SET PAY_SYSTEM_ID = 8");
    same(false, $world->deliver(World::approved('s-1')));
    contains('another pay system', $world->field('REASON_MARKED'));
    Application::getConnection()->query("UPDATE b_sale_order_payment SET PAY_SYSTEM_ID = 7, SUM = '200.00'");
    same(false, $world->deliver(World::approved('s-1')));
    same('N', $world->field('PAID'));
    // Bitrix drops what is for a cancelled order, with 200: no acknowledgement, so priorgate raises its alarm.
    Application::getConnection()->query("UPDATE b_sale_order SET CANCELED = 'Y'");
    same(false, $world->deliver(World::approved('s-1')));
});

test('while another request has the order there is no acknowledgement, and it comes again', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    $other = new Connection("$dir/shop.db");
    same(true, $other->lock('priorgate-order-1'));
    same(false, $world->deliver(World::approved('s-1')));
    same(['N', 'N'], [$world->field('PAID'), $world->field('MARKED')]);
    $other->unlock('priorgate-order-1');
    same(true, $world->deliver(World::approved('s-1')));
    same('Y', $world->field('PAID'));
});

test('what is not saved is not acknowledged', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    Order::$failSaves = 1;
    same(false, $world->deliver(World::approved('s-1')));
    same('N', $world->field('PAID'));
    Application::getConnection()->broken = 'b_priorgate_session WHERE';
    $thrown = false;
    try {
        $world->deliver(World::approved('s-1'));
    } catch (Throwable) {
        $thrown = true;
        ob_end_clean();
    }
    same(true, $thrown, 'a broken database is an error of PHP, and no acknowledgement');
    Application::getConnection()->broken = '';
    same(true, $world->deliver(World::approved('s-1')));
    same([1, 0], [$world->receipts('Y'), $world->receipts('N')]);
});

test('PENDING, REJECTED and CANCELLED leave the order unpaid and say so', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    foreach (['PENDING' => 'not decided', 'REJECTED' => 'rejected', 'CANCELLED' => 'cancelled'] as $status => $said) {
        same(true, $world->deliver(['status' => $status] + World::approved('s-1')));
        same([$status, 'N', 'N'], [$world->field('PS_STATUS_CODE'), $world->field('PS_STATUS'), $world->field('PAID')]);
        contains($said, $world->field('PS_STATUS_DESCRIPTION'));
    }
    // Money is out after all.
    same(true, $world->deliver(World::approved('s-1')));
    same('Y', $world->field('PAID'));
});

test('after APPROVED nothing but a refund un-pays', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    same(true, $world->deliver(['status' => 'PENDING'] + World::approved($session)));
    same('APPROVED', $world->field('PS_STATUS_CODE'));
    foreach (['REJECTED', 'CANCELLED'] as $status) {
        same(true, $world->deliver(['status' => $status] + World::approved($session)));
        same(['Y', $status], [$world->field('PAID'), $world->field('PS_STATUS_CODE')]);
        contains('ask the bank', $world->field('PS_STATUS_DESCRIPTION'));
    }
    same(0, $world->receipts('N'));
});

test('REFUNDED un-pays without a refund of ours, and a late APPROVED does not pay again', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    same(true, $world->deliver(World::refunded($session, 'r-9', '149.90', '149.90')));
    same(['N', 'P', 'N'], [$world->field('PAID'), $world->field('IS_RETURN'), $world->field('PS_STATUS')]);
    same([], $world->gate->requests('/installment/refund'), 'no echo');
    same(true, $world->deliver(World::refunded($session, 'r-9', '149.90', '149.90')));
    same(true, $world->deliver(World::approved($session)));
    same('N', $world->field('PAID'));
    same([1, 1], [$world->receipts('Y'), $world->receipts('N')]);
});

test('a REFUNDED of a part keeps the order paid and records the sum, until the parts are the whole', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    same(true, $world->deliver(World::refunded($session, 'r-1', '50.00', '50.00')));
    same(['Y', 'REFUNDED'], [$world->field('PAID'), $world->field('PS_STATUS_CODE')]);
    contains('50.00', $world->field('PS_STATUS_DESCRIPTION'));
    contains('total=5000 ', $world->field('PS_STATUS_MESSAGE'));
    same(true, $world->deliver(World::refunded($session, 'r-1', '50.00', '50.00')), 'doubled');
    same(true, $world->deliver(World::approved($session)), 'late');
    same('Y', $world->field('PAID'));
    // The third before the second.
    same(true, $world->deliver(World::refunded($session, 'r-3', '29.90', '149.90')));
    same('N', $world->field('PAID'));
    same(true, $world->deliver(World::refunded($session, 'r-2', '70.00', '120.00')));
    same([1, 1], [$world->receipts('Y'), $world->receipts('N')]);
});

test('a bank that tells only parts, or only the word, is understood where that is possible', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    $part = static fn (string $id, string $sum): array => array_diff_key(World::refunded($session, $id, $sum, '0'), ['refunded' => 0]);
    same(true, $world->deliver($part('r-1', '50.00')));
    same(true, $world->deliver($part('r-1', '50.00')));
    same('Y', $world->field('PAID'));
    same(false, $world->deliver(['status' => 'REFUNDED'] + World::approved($session)), 'the word alone, after a part');
    same(true, $world->deliver($part('r-2', '99.90')));
    same('N', $world->field('PAID'));
    same(false, $world->deliver($part('r-3', '0.01')), 'more than was paid');
});

test('the word alone is all of it, and of what was never paid nothing', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    $refunded = ['status' => 'REFUNDED'] + World::approved('s-1');
    same(false, $world->deliver($refunded));
    contains('never made', $world->field('REASON_MARKED'));
    $world->deliver(World::approved('s-1'));
    same(true, $world->deliver($refunded));
    same('N', $world->field('PAID'));
});

test('a second session that is approved is an alarm and not a second payment', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    Application::getConnection()->query('UPDATE b_priorgate_session SET CREATED_AT = CREATED_AT - 3600');
    $world->pay();
    // The customer had the first page open still.
    same(true, $world->deliver(World::approved('s-1')));
    same(['Y', 's-1'], [$world->field('PAID'), $world->field('PS_INVOICE_ID')]);
    same(true, $world->deliver(['status' => 'CANCELLED'] + World::approved('s-2')), 'the other one just ends');
    same('APPROVED', $world->field('PS_STATUS_CODE'));
    same(false, $world->deliver(World::approved('s-2')));
    contains('second instalment', $world->field('REASON_MARKED'));
    same(false, $world->deliver(World::refunded('s-2', 'r-1', '149.90', '149.90')));
    same('Y', $world->field('PAID'));
});

test('a session whose answer was lost is paid by the reference that the bank gives back, and can be refunded', function (string $dir): void {
    $world = new World($dir);
    $world->gate->control(['next' => [['lose' => true]]]);
    $world->pay();
    same(false, $world->deliver(World::approved('s-1'), ['secret' => World::TEST_SECRET]), 'not by the test bank');
    same(true, $world->deliver(World::approved('s-1')));
    same(['Y', 's-1'], [$world->field('PAID'), $world->field('PS_INVOICE_ID')]);
    $world->gate->control(['sessions' => ['s-1' => ['status' => 'APPROVED']]]);
    same([], $world->refundAll());
    same(14990, $world->given('s-1'));
});

test('a shop that marks payments itself only gets the fields', function (string $dir): void {
    $world = new World($dir);
    Manager::$values['PS_CHANGE_STATUS_PAY'] = 'N';
    $world->pay();
    same(true, $world->deliver(World::approved('s-1')));
    same(['N', 'Y'], [$world->field('PAID'), $world->field('PS_STATUS')]);
});

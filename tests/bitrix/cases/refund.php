<?php

declare(strict_types=1);

use Bitrix\Main\Application;
use Bitrix\Main\DB\Connection;
use Bitrix\Sale\Order;
use Bitrix\Sale\Payment;
use Bitrix\Sale\PaySystem\Manager;

test('a refund from the order\'s page is sent once and un-pays', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    same([], $world->refundAll());
    same(['N', 'P'], [$world->field('PAID'), $world->field('IS_RETURN')]);
    same(14990, $world->given($session));
    [$request] = $world->gate->requests('/installment/refund');
    same("refund-$session-0-0", $request['headers']['idempotency-key']);
    same('{"session_id":"' . $session . '","amount":"149.90"}', $request['body']);
    // The bank's own notification of it changes nothing.
    same(true, $world->deliver(World::refunded($session, "r-$session-1", '149.90', '149.90')));
    same([1, 1], [$world->receipts('Y'), $world->receipts('N')]);
});

test('clicked twice, at once or with an old page, it is one refund', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    $first = $world->payment();
    $second = Order::load(1)->getPaymentCollection()->getItemById(1);
    // At once: the first one's request has the order.
    $other = new Connection("$dir/shop.db");
    $other->lock('priorgate-order-1');
    contains('Another request', $second->setReturn(Payment::RETURN_PS)->getErrorMessages()[0]);
    $other->unlock('priorgate-order-1');
    same([], $world->save($first, $first->setReturn(Payment::RETURN_PS)));
    contains('reload', $second->setReturn(Payment::RETURN_PS)->getErrorMessages()[0]);
    same(1, count($world->gate->requests('/installment/refund')));
    same(14990, $world->given($session));
});

test('a page that is older than the payment\'s state refunds nothing', function (string $dir): void {
    $world = new World($dir);
    $world->paid();
    $old = $world->payment();
    Application::getConnection()->query("UPDATE b_sale_order_payment SET PAID = 'N'");
    contains('reload', $world->save($old, $old->setReturn(Payment::RETURN_PS))[0]);
    same([], $world->gate->refundKeys());
});

test('a refund whose save fails is saved by the next try, and pays once', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    Order::$failSaves = 1;
    same(['the order was not saved'], $world->refundAll());
    same(['Y', 14990], [$world->field('PAID'), $world->given($session)]);
    same([], $world->refundAll());
    same(['N', 14990], [$world->field('PAID'), $world->given($session)]);
    same(["refund-$session-0-0", "refund-$session-0-0"], $world->gate->refundKeys());
});

test('a refund whose save fails is saved by the bank\'s notification as well', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    Order::$failSaves = 1;
    $world->refundAll();
    same(true, $world->deliver(World::refunded($session, "r-$session-1", '149.90', '149.90')));
    same(['N', 14990], [$world->field('PAID'), $world->given($session)]);
    same(1, count($world->gate->refundKeys()));
});

test('after a failed save another sum is refused: save the earlier one first', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    Order::$failSaves = 1;
    $world->refundPart('50.00');
    foreach (['70.00', '99.90'] as $sum) {
        $said = $world->refundPart($sum)[0];
        contains('An earlier refund of 50.00 was made', $said);
    }
    contains('An earlier refund of 50.00 was made', $world->refundAll()[0]);
    same(5000, $world->given($session), 'no second payment');
    // Its notification makes no difference to the key.
    same(true, $world->deliver(World::refunded($session, "r-$session-1", '50.00', '50.00')));
    contains('An earlier refund of 50.00 was made', $world->refundPart('70.00')[0]);
    same([], $world->refundPart('50.00'), 'the earlier one, saved');
    same(5000, $world->given($session));
    contains('n=1 ', $world->field('PS_STATUS_MESSAGE'));
    same([], $world->refundPart('70.00'));
    same(['Y', 12000], [$world->field('PAID'), $world->given($session)]);
    same("refund-$session-1-0", $world->gate->refundKeys()[6]);
});

test('parts leave the order paid until they are the whole; all of it is what is left', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    same([], $world->refundPart('50.00'));
    same(['Y', 'N'], [$world->field('PAID'), $world->field('IS_RETURN')]);
    contains('50.00', $world->field('PS_STATUS_DESCRIPTION'));
    foreach (['100.00', '0.001', '-1', 'x'] as $sum) {
        contains('not possible', $world->refundPart($sum)[0]);
    }
    same([], $world->refundAll());
    same(['N', 14990], [$world->field('PAID'), $world->given($session)]);
    same(["refund-$session-0-0", "refund-$session-1-0"], $world->gate->refundKeys());
    same([1, 1], [$world->receipts('Y'), $world->receipts('N')]);
});

test('a second equal part is asked about, and sent only when the operator has said so', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    same([], $world->refundPart('50.00'));
    $said = $world->refundPart('50.00')[0];
    contains('made within a day', $said);
    same(1, preg_match('/repeat-[0-9a-f]{6}/', $said, $word));
    same(5000, $world->given($session));
    contains('made within a day', $world->refundPart('50.00', 'please repeat-000000')[0]);
    same([], $world->refundPart('50.00', "agreed by phone, $word[0]"));
    same(10000, $world->given($session));
    $headers = array_column($world->gate->requests('/installment/refund'), 'headers');
    same([false, false, false, true], array_map(static fn ($one) => isset($one['priorgate-repeat']), $headers));
    same('intended', $headers[3]['priorgate-repeat']);
    // The old word confirms nothing else.
    contains('not possible', $world->refundPart('50.00', $word[0])[0]);
});

/** The word that the operator is asked for. */
function word(string $said): string
{
    return preg_match('/repeat-[0-9a-f]{6}/', $said, $word) === 1 ? $word[0] : '';
}

test('a definitive refusal gives the next try another key; nothing else does', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    $no = ['status' => 422, 'json' => ['error' => ['code' => 'limit', 'message' => 'Иван']]];
    $world->gate->control(['next' => [['bank' => $no]]]);
    contains('refused the refund of 149.90 (HTTP 422 limit)', $world->refundAll()[0]);
    // The guard has seen the same request; only that it was refused.
    $asked = $world->refundAll()[0];
    contains('To ask the bank once more', $asked);
    $word = word($asked);
    $world->gate->control(['next' => [
        ['bank' => ['status' => 429]], ['bank' => ['status' => 401]],
        ['problem' => ['status' => 502, 'code' => 'bank_unreachable', 'outcome' => 'not_sent']],
        ['hang_up' => true], ['bank' => $no],
    ]]);
    $said = [];
    for ($try = 0; $try < 5; $try++) {
        $said[] = $world->refundAll($word)[0];
    }
    contains('right now (HTTP 429)', $said[0]);
    contains('not sent (bank_unreachable)', $said[2]);
    contains('Do NOT repeat', $said[3]);
    contains('refused the refund', $said[4]);
    same(false, str_contains(implode($said), 'Иван'));
    $next = $world->refundAll($word)[0];
    contains('To ask the bank once more', $next, 'the old word is not for the next try');
    same([], $world->refundAll(word($next)));
    same(['N', 14990], [$world->field('PAID'), $world->given($session)]);
    same([
        "refund-$session-0-0", ...array_fill(0, 6, "refund-$session-0-1"), "refund-$session-0-2", "refund-$session-0-2",
    ], $world->gate->refundKeys());
});

test('after a refusal another sum is another refund', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    $world->gate->control(['next' => [['bank' => ['status' => 422]]]]);
    contains('refused', $world->refundPart('149.90')[0]);
    same([], $world->refundPart('50.00'));
    // The count of refusals is that of one refund.
    same([], $world->refundPart('60.00'));
    same(["refund-$session-0-0", "refund-$session-0-1", "refund-$session-1-0"], $world->gate->refundKeys());
});

test('a refusal that could not be written down is replayed, and written down then', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    $world->gate->control(['next' => [['bank' => ['status' => 409]]]]);
    Application::getConnection()->broken = 'SET REFUSALS';
    $thrown = false;
    try {
        $world->refundAll();
    } catch (Throwable) {
        $thrown = true;
    }
    same(true, $thrown);
    Application::getConnection()->broken = '';
    contains('refused', $world->refundAll()[0]);
    same([], $world->refundAll(word($world->refundAll()[0])));
    same(["refund-$session-0-0", "refund-$session-0-0", "refund-$session-0-1", "refund-$session-0-1"],
        $world->gate->refundKeys());
    same(14990, $world->given($session));
});

test('what cannot be written down is not sent, and a note that is lost undoes nothing', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    Application::getConnection()->broken = "'asked'";
    try {
        $world->refundAll();
    } catch (Throwable) {
    }
    same([], $world->gate->refundKeys());
    Application::getConnection()->broken = "REFUND_STATE = 'done'";
    same([], $world->refundAll());
    same(['N', 14990], [$world->field('PAID'), $world->given($session)]);
});

test('an unknown outcome is never repeated: the operator is told to ask the bank', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    $world->gate->control(['next' => [['lose' => true]]]);
    $said = $world->refundAll()[0];
    contains('Do NOT repeat', $said);
    contains('op_00000000000000000002', $said);
    contains('Do NOT repeat', $world->refundAll()[0], 'outcome_unknown');
    same(['Y', 14990], [$world->field('PAID'), $world->given($session)], 'one refund');
    // The bank has it: a person says so, and the same click gets the answer.
    $world->gate->control(['resolve' => 'done']);
    same([], $world->refundAll());
    same(['N', 14990], [$world->field('PAID'), $world->given($session)]);
    same(1, count(array_unique($world->gate->refundKeys())));
});

test('a whole 500 of the bank is unknown as well', function (string $dir): void {
    $world = new World($dir);
    $world->paid();
    $world->gate->control(['next' => [['bank' => ['status' => 500]]]]);
    contains('Do NOT repeat', $world->refundAll()[0]);
    $world->gate->control(['resolve' => 'not_sent']);
    same([], $world->refundAll());
});

test('the bank\'s unknown does not stop its notification, nor the notification the guard', function (string $dir): void {
    $world = new World($dir);
    $session = $world->paid();
    $world->gate->control(['next' => [['lose' => true]]]);
    $world->refundPart('50.00');
    // It was made: the bank says so. The key stays, so the same refund is not made again.
    same(true, $world->deliver(World::refunded($session, "r-$session-1", '50.00', '50.00')));
    contains('Do NOT repeat', $world->refundPart('50.00')[0]);
    contains('An earlier refund of 50.00', $world->refundPart('99.90')[0]);
    same(5000, $world->given($session));
});

test('what priorgate answers by its table never moves a key, and each is told', function (string $dir): void {
    $readme = file_get_contents(__DIR__ . '/../../../README.md');
    preg_match_all('/^\| ([0-9 \/]+) \| `([a-z_]+)` \| ([a-z_ ]+) \|/m', $readme, $rows, PREG_SET_ORDER);
    same(true, count($rows) >= 28, 'the README has the table');
    $world = new World($dir);
    $session = $world->paid();
    $expected = [
        'duplicate_request' => 'made within a day', 'idempotency_key_reused' => 'earlier refund',
        'subject_busy' => 'is not settled', 'operation_in_flight' => 'is running',
    ];
    foreach ($rows as [, $status, $code, $outcomes]) {
        foreach (explode(' or ', $outcomes) as $outcome) {
            $world->gate->control(['next' => [['problem' => [
                'status' => (int) $status, 'code' => $code, 'outcome' => trim($outcome),
            ]]]]);
            $said = $world->refundAll()[0];
            contains($expected[$code] ?? (trim($outcome) === 'not_sent' ? "not sent ($code)" : 'Do NOT repeat'), $said);
            same('Y', $world->field('PAID'), $code);
        }
    }
    same(["refund-$session-0-0"], array_values(array_unique($world->gate->refundKeys())));
    same([], $world->refundAll());
    same(14990, $world->given($session));
});

test('a port where somebody else listens, or nobody, is told as what it is', function (string $dir): void {
    $world = new World($dir);
    $world->paid();
    Manager::$values['PRIORGATE_SOCKET_LIVE'] = "$dir/nobody.sock";
    contains('not sent (sidecar_unreachable)', $world->refundAll()[0]);
    // A page that says 200 to everything, as a web server does.
    $server = proc_open([PHP_BINARY, '-S', '127.0.0.1:0', '-t', "$dir/www"], [1 => ['file', '/dev/null', 'w'],
        2 => ['pipe', 'w']], $pipes);
    file_put_contents("$dir/www/index.php", '<?php header("Content-Type: application/json"); echo \'{"refund_id":"r"}\';');
    $line = fgets($pipes[2]);
    same(1, preg_match('#http://127\.0\.0\.1:[0-9]+#', (string) $line, $url), (string) $line);
    Manager::$values['PRIORGATE_SOCKET_LIVE'] = $url[0];
    contains('Do NOT repeat', $world->refundAll()[0]);
    proc_terminate($server);
    proc_close($server);
    foreach (['http://bank.example', 'https://127.0.0.1', 'priorgate.sock', '', 'http://127.0.0.1@evil.example'] as $where) {
        Manager::$values['PRIORGATE_SOCKET_LIVE'] = $where;
        contains('not set up', $world->refundAll()[0]);
    }
    same('Y', $world->field('PAID'));
});

test('over loopback TCP the token comes from its file', function (string $dir): void {
    $world = new World($dir);
    $world->paid();
    $gate = new Gate($dir, 'tcp:0');
    file_put_contents("$dir/token", "0123456789abcdef\n");
    chmod("$dir/token", 0440);
    Manager::$values['PRIORGATE_SOCKET_LIVE'] = $gate->address();
    Manager::$values['PRIORGATE_TOKEN_FILE_LIVE'] = "$dir/token";
    // No proxy is asked, whatever the environment says.
    putenv('http_proxy=http://127.0.0.1:1');
    contains('refused', $world->refundAll()[0]);
    putenv('http_proxy');
    [$request] = $gate->requests('/installment/refund');
    same('0123456789abcdef', $request['headers']['priorgate-token']);
    chmod("$dir/token", 0644);
    contains('chmod 0440', $world->refundAll()[0]);
});

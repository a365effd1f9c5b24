<?php

declare(strict_types=1);

use Bitrix\Main\Application;
use Bitrix\Main\Localization\Loc;
use Bitrix\Sale\Order;
use Bitrix\Sale\PaySystem\Manager;

test('the status button says what the bank says, and pays what was approved', function (string $dir): void {
    $world = new World($dir);
    contains('no session', $world->check());
    $world->pay();
    contains('PENDING, refunded 0.00', $world->check());
    same('N', $world->field('PAID'));
    // The callback was lost.
    $world->gate->control(['sessions' => ['s-1' => ['status' => 'APPROVED']]]);
    contains('APPROVED', $world->check());
    same('Y', $world->field('PAID'));
    $world->check();
    same(1, $world->receipts('Y'));
    same(['GET', '/installment/s-1', ''], array_map(
        static fn ($name) => $world->gate->requests('/installment/s-1')[0][$name],
        ['method', 'path', 'body'],
    ));
});

test('the status button does not pay another sum, nor what was refunded', function (string $dir): void {
    $world = new World($dir);
    $world->pay();
    $world->gate->control(['sessions' => ['s-1' => ['status' => 'APPROVED', 'amount' => '1.00']]]);
    contains('sum is not the payment', $world->check());
    same('N', $world->field('PAID'));
    $world->gate->control(['sessions' => ['s-1' => ['status' => 'APPROVED', 'amount' => '149.90']]]);
    $world->deliver(World::approved('s-1'));
    $world->refundAll();
    $world->gate->control(['sessions' => ['s-1' => ['status' => 'APPROVED', 'refunded' => 0]]]);
    $world->check();
    same('N', $world->field('PAID'));
    $world->gate->control(['next' => [['problem' => ['status' => 504, 'code' => 'bank_timeout', 'outcome' => 'unknown']]]]);
    contains('bank_timeout', $world->check());
    Manager::$values['PRIORGATE_SOCKET_LIVE'] = '';
    contains('not set up', $world->check());
});

test('the status button says what it means for a refund whose outcome is unknown', function (string $dir): void {
    $world = new World($dir);
    $world->paid();
    $world->gate->control(['next' => [['lose' => true]]]);
    $world->refundPart('50.00');
    $said = $world->check();
    contains('refund of 50.00 whose outcome was unknown was made', $said);
    contains('operations resolve op_00000000000000000002 --as done', $said);
    same('Y', $world->field('PAID'));
    $world->deliver(World::refunded('s-1', 'r-s-1-1', '50.00', '50.00'));
    contains('was made', $world->check(), 'its notification makes no difference');
    // The other way: it got lost on its way to the bank.
    $world->gate->control(['sessions' => ['s-1' => ['refunded' => 0]]]);
    contains('only its word', $world->check());
    // Settled, nothing is said of it any more.
    $world->gate->control(['resolve' => 'done', 'sessions' => ['s-1' => ['refunded' => 5000]]]);
    same([], $world->refundPart('50.00'));
    same(false, str_contains($world->check(), 'unknown'));
});

test('the form, the messages and the templates are whole, in Russian and in English', function (string $dir): void {
    $base = __DIR__ . '/../../../examples/bitrix/priorgate';
    foreach (['.description.php', 'handler.php', 'template/template.php', 'template/badge.php'] as $file) {
        [$ru, $en] = array_map(static fn ($language) => Loc::read("$base/lang/$language/$file"), ['ru', 'en']);
        same(array_keys($en), array_keys(array_replace($en, $ru)), $file);
        same(count($en), count($ru), $file);
        foreach ($en as $code => $text) {
            preg_match_all('/#[A-Z_]+#/', $text, $left);
            preg_match_all('/#[A-Z_]+#/', $ru[$code], $right);
            sort($left[0]);
            sort($right[0]);
            same($left[0], $right[0], $code);
            // PS_STATUS_DESCRIPTION takes 512 characters; a status with an unknown outcome says three sentences.
            same(true, preg_match_all('/./su', $ru[$code]) <= 260, $code);
        }
    }
    // Every code that the handler can say has a text, and no text is left over.
    $source = '';
    foreach ([...glob("$base/lib/*.php"), "$base/handler.php"] as $file) {
        $source .= file_get_contents($file);
    }
    foreach (array_keys(Loc::read("$base/lang/en/handler.php")) as $code) {
        $code = substr($code, strlen('PRIORGATE_'));
        $short = preg_replace('/^(CB|NOTE)_/', '', $code);
        same(1, preg_match("/'($code|$short)'|::$short\\b/", $source), $code);
    }
    preg_match_all("/'((?:PAY|CB|REFUND|CHECK|NOTE|ITEM)_[A-Z_]+)'/", $source, $said);
    $texts = Loc::read("$base/lang/en/handler.php");
    $columns = ['PAY_RETURN_COMMENT', 'REFUND_N', 'REFUND_KEY', 'REFUND_SUM', 'REFUND_STATE', 'REFUND_OPERATION', 'REFUND_BASE'];
    foreach (array_diff(array_unique($said[1]), $columns) as $code) {
        same(true, isset($texts["PRIORGATE_$code"]) || isset($texts["PRIORGATE_CB_$code"]), $code);
    }
    preg_match_all("/error\\('([A-Z_]+)'\\)/", file_get_contents("$base/lib/Verdict.php"), $errors);
    foreach ($errors[1] as $code) {
        same(true, isset($texts["PRIORGATE_CB_$code"]), $code);
    }
    // The form.
    (static function () use ($base, &$data): void {
        require "$base/.description.php";
    })();
    foreach (['PS_IS_TEST', 'PS_CHANGE_STATUS_PAY', 'PRIORGATE_SOCKET_TEST', 'PRIORGATE_SOCKET_LIVE'] as $code) {
        same(true, isset($data['CODES'][$code]), $code);
    }
    foreach ($data['CODES'] as $code => $field) {
        same(true, $field['NAME'] !== null && $field['NAME'] !== '', $code);
        same(0, preg_match('/CERT|_KEY|PASS/', $code), 'no certificate, no key, no password in the form');
    }
    preg_match_all("/text\\(['\"]([A-Z_]+)['\"]\\)/", $source, $read);
    foreach (array_unique($read[1]) as $code) {
        same(true, isset($data['CODES'][$code]), "$code is read, and in the form");
    }
});

test('both documents say what to do about every error', function (): void {
    $root = __DIR__ . '/../../..';
    preg_match_all('/^\| [0-9 \/]+ \| (`[a-z_`\/ ]+`) \|/m', file_get_contents("$root/README.md"), $rows);
    preg_match_all('/`([a-z_]+)`/', implode(' ', $rows[1]), $codes);
    same(true, count($codes[1]) >= 28);
    foreach (['docs/bitrix.md', 'docs/ru/README.md'] as $file) {
        preg_match_all('/^\| (`[^|]+) \|/m', file_get_contents("$root/$file"), $rows);
        preg_match_all('/`([a-z_]+)`/', implode(' ', $rows[1]), $told);
        same([], array_values(array_diff($codes[1], $told[1])), "$file explains every code of the README");
        $own = ['sidecar_unreachable', 'sidecar_silent', 'not_priorgate'];
        same([], array_values(array_diff($told[1], $codes[1], $own)), "$file explains no other code");
    }
});

test('no file of the handler names a certificate or a private key option', function (): void {
    $base = __DIR__ . '/../../../examples/bitrix';
    foreach (new RecursiveIteratorIterator(new RecursiveDirectoryIterator($base, FilesystemIterator::SKIP_DOTS)) as $file) {
        $text = file_get_contents((string) $file);
        same(0, preg_match('/SSLCERT|SSLKEY|CAINFO|BEGIN .*PRIVATE|local_cert|local_pk/', $text), (string) $file);
    }
});

test('the badge is rounded up, accessible, escaped and bilingual', function (): void {
    foreach (['en' => '12.50 BYN/month × 12', 'ru' => '12,50 BYN/мес × 12'] as $language => $shown) {
        Loc::$language = $language;
        $priorgateBadge = ['price' => 149.9, 'months' => 12, 'currency' => 'BYN'];
        ob_start();
        include __DIR__ . '/../../../examples/bitrix/priorgate/template/badge.php';
        $html = ob_get_clean();
        contains('<span aria-hidden="true">' . $shown, $html);
        contains('aria-live="polite"', $html);
    }
    foreach (['149.905', '0', '"><script>', null] as $price) {
        $priorgateBadge = ['price' => $price, 'currency' => '"><b>'];
        ob_start();
        include __DIR__ . '/../../../examples/bitrix/priorgate/template/badge.php';
        same('', ob_get_clean());
    }
    $priorgateBadge = ['price' => '1.00', 'currency' => '"><b>', 'nonce' => '"'];
    ob_start();
    include __DIR__ . '/../../../examples/bitrix/priorgate/template/badge.php';
    same(false, str_contains((string) ob_get_clean(), '<b>'));
    Loc::$language = 'en';
});

test('the badge\'s script counts as PHP does', function (): void {
    exec('node --version 2>/dev/null', $version, $code);
    if ($code !== 0) {
        echo "skipped: no node for the badge's script\n";
        return;
    }
    $script = 'const b = require(process.argv[1]);'
        . 'console.log(JSON.stringify(JSON.parse(process.argv[2]).map(([p, m]) => b.perMonth(p, m))))';
    $cases = $expected = [];
    foreach (['0.01', '0.99', '1', '149.9', '149.90', '150.01', '999999999999.99', '1234.56'] as $price) {
        foreach ([1, 3, 7, 12, 36] as $months) {
            $cases[] = [$price, $months];
            $expected[] = (string) Sale\Handlers\PaySystem\Priorgate\Money::parse($price)?->perMonth($months);
        }
    }
    $file = __DIR__ . '/../../../examples/bitrix/priorgate/template/badge.js';
    $line = exec('node -e ' . escapeshellarg($script) . ' ' . escapeshellarg($file) . ' ' . escapeshellarg(json_encode($cases)));
    same($expected, json_decode((string) $line, true));
});

<?php

declare(strict_types=1);

use Sale\Handlers\PaySystem\Priorgate\Money;
use Sale\Handlers\PaySystem\Priorgate\RefundState;

test('what Bitrix and JSON call a number is read to the kopeck', function (): void {
    foreach (
        [['149.9', 14990], ['149.90', 14990], ['149.9000', 14990], [149.9, 14990], [0.1 + 0.2, 30], [10, 1000], ['0.01', 1],
            ['0', 0], [1.005 * 100, 10050], ['999999999999.99', 99999999999999]] as [$value, $minor]
    ) {
        same($minor, Money::of($value)?->minor, var_export($value, true));
    }
    same('149.90', (string) Money::of('149.9'));
    same('0.05', (string) Money::ofMinor(5));
});

test('what is no whole number of kopecks is no amount', function (): void {
    foreach (
        ['10.005', 10.005, '', '-1', '+1', '1e2', '1.', '.5', ' 1', "1\n", '007', '1,50', null, [], true, -1.0, NAN, INF, 1e12,
            '1000000000000', '١'] as $value
    ) {
        same(null, Money::of($value), var_export($value, true));
    }
});

test('a line is rounded half up and a month is rounded up', function (): void {
    foreach ([['49.90', '3', '149.70'], ['0.01', '0.5', '0.01'], ['0.01', '0.499', '0.00'], ['9.99', '1.5', '14.99']] as $line) {
        same($line[2], (string) Money::parse($line[0])?->times($line[1]));
    }
    foreach (['0', '', '1.2345', '-1', '1e3'] as $quantity) {
        same(null, Money::parse('1.00')?->times($quantity));
    }
    same(null, Money::parse('999999999999.99')?->times('999999999'), 'does not wrap');
    foreach ([['149.90', 12, '12.50'], ['150.00', 12, '12.50'], ['150.01', 12, '12.51'], ['0.01', 12, '0.01']] as $month) {
        same($month[2], (string) Money::parse($month[0])?->perMonth($month[1]));
    }
});

test('a refund is counted once whoever tells of it first, and survives being written down', function (): void {
    $sum = static fn (string $text): Money => Money::parse($text) ?? throw new LogicException();
    $state = RefundState::read('');
    same(true, $state->isEmpty());
    $shop = $state->answered('r-1', $sum('50.00'));
    same(['50.00', 1], [(string) $shop->refunded(), $shop->saved]);
    // The bank's callback of the same refund, with its running total and without.
    same('50.00', (string) $shop->told('r-1', $sum('50.00'), $sum('50.00'))->refunded());
    same('50.00', (string) $shop->told('r-1', $sum('50.00'), null)->refunded());
    // The other way round; and one that the bank made itself, told out of order.
    $bank = $state->told('r-2', $sum('70.00'), $sum('120.00'));
    same(['120.00', 0], [(string) $bank->refunded(), $bank->saved]);
    same(['120.00', 1], [(string) $bank->answered('r-1', $sum('50.00'))->refunded(), $bank->answered('r-1', $sum('50.00'))->saved]);
    same('120.00', (string) $bank->told('r-1', $sum('50.00'), $sum('50.00'))->refunded());
    $read = RefundState::read((string) $bank);
    same((string) $bank, (string) $read);
    foreach (['garbage', 'priorgate n=1', null, 'priorgate n=1 total=1 refunds=zz:1'] as $text) {
        same(true, RefundState::read($text)->isEmpty());
    }
    // It fits into the field.
    for ($n = 0; !$state->isFull(); $n++) {
        $state = $state->answered("r-$n", $sum('999999.99'));
    }
    same(true, strlen((string) $state) <= 250 && $n >= 9, "$n: $state");
    same((string) $state, (string) RefundState::read((string) $state));
});

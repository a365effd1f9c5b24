<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * What the shop does with what the bank says. Pure: it reads what it is given and touches nothing.
 *
 * The order of events is the bank's and the network's, not ours: APPROVED may come twice, late, or after the refund. What
 * contradicts what is known is an error, which Bitrix shows at the payment and which is not acknowledged, so that
 * priorgate raises its alarm; what is only old news is acknowledged and changes nothing.
 */
final class Verdict
{
    public const PAY = 'pay';
    public const UNPAY = 'unpay';

    /**
     * @param array<string, string> $fields of the payment, to be saved
     * @param string $operation PAY, UNPAY or ''
     * @param string $note the message's code, for PS_STATUS_DESCRIPTION
     * @param string $error the message's code
     */
    private function __construct(
        public readonly array $fields = [],
        public readonly string $operation = '',
        public readonly string $note = '',
        public readonly string $error = '',
        public readonly ?Money $refunded = null,
    ) {
    }

    /**
     * @param array{sum: ?Money, currency: string, paid: bool, returned: bool, approved: bool, invoice: string,
     *     refunds: RefundState} $payment as Bitrix has it
     */
    public static function of(Facts $facts, array $payment): self
    {
        if ($payment['sum'] === null) {
            return self::error('SUM_FRACTION');
        }
        $money = in_array($facts->status, [Facts::APPROVED, Facts::REFUNDED], true);
        if ($facts->currency === null ? $money : $facts->currency !== $payment['currency']) {
            return self::error('CURRENCY');
        }
        if ($facts->amount === null ? $money : !$facts->amount->equals($payment['sum'])) {
            return self::error('SUM');
        }
        $own = $payment['invoice'] === $facts->session;
        $before = $payment['paid'] || $payment['returned'] || $payment['approved'] || !$payment['refunds']->isEmpty();
        return match ($facts->status) {
            Facts::APPROVED => self::approved($facts, $payment, $own, $before),
            Facts::REFUNDED => self::refunded($facts, $payment, $own, $before),
            Facts::PENDING => $own && !$before ? self::status('N', $facts, 'PENDING') : new self(),
            // REJECTED, CANCELLED
            default => match (true) {
                !$own => new self(),
                $before => self::status('Y', $facts, 'CONFLICT'),
                default => self::status('N', $facts, $facts->status),
            },
        };
    }

    /** @param array<string, mixed> $payment */
    private static function approved(Facts $facts, array $payment, bool $own, bool $before): self
    {
        if ($before && !$own) {
            // Two instalments run for one payment.
            return self::error('SECOND_SESSION');
        }
        if ($payment['returned'] || !$payment['refunds']->isEmpty() || ($payment['paid'] && $payment['approved'])) {
            // Late or doubled: it must not pay again what was given back.
            return new self();
        }
        $fields = ['PS_INVOICE_ID' => $facts->session, 'PS_SUM' => (string) $facts->amount,
            'PS_CURRENCY' => (string) $facts->currency];
        $verdict = self::status('Y', $facts, 'APPROVED', $fields);
        return $payment['paid'] ? $verdict : $verdict->with(self::PAY);
    }

    /** @param array<string, mixed> $payment */
    private static function refunded(Facts $facts, array $payment, bool $own, bool $before): self
    {
        if (!$own || !$before) {
            // A refund of what was never paid.
            return self::error('REFUND_OF_UNPAID');
        }
        /** @var RefundState $known */
        $known = $payment['refunds'];
        $sum = $payment['sum'];
        if ($known->isFull() && $facts->refundId !== null && !$known->knows($facts->refundId) && $facts->refunded === null) {
            return self::error('REFUND_TOO_MANY');
        }
        if ($facts->refunded === null && $facts->refundAmount === null) {
            // Nothing but the word: all of it, unless parts are known already.
            if (!$known->refunded()->isZero() && !$known->refunded()->equals($sum)) {
                return self::error('REFUND_UNCLEAR');
            }
            $now = $known->told(null, null, $sum);
        } elseif ($facts->refunded === null && $facts->refundId === null) {
            return self::error('REFUND_UNCLEAR');
        } else {
            $now = $known->told($known->isFull() ? null : $facts->refundId, $facts->refundAmount, $facts->refunded);
        }
        if ($now->refunded()->exceeds($sum)) {
            return self::error('REFUND_SUM');
        }
        $whole = $now->refunded()->equals($sum);
        if ($now->equals($known) && !($whole && $payment['paid'])) {
            return new self();
        }
        $fields = ['PS_STATUS_MESSAGE' => (string) $now];
        $note = $whole ? 'REFUNDED' : 'REFUNDED_PART';
        $verdict = self::status($whole ? 'N' : 'Y', $facts, $note, $fields, $now->refunded());
        return $whole && $payment['paid'] ? $verdict->with(self::UNPAY) : $verdict;
    }

    /** @param array<string, string> $more */
    private static function status(
        string $good,
        Facts $facts,
        string $note,
        array $more = [],
        ?Money $refunded = null,
    ): self {
        return new self(['PS_STATUS' => $good, 'PS_STATUS_CODE' => $facts->status] + $more, '', $note, '', $refunded);
    }

    private static function error(string $code): self
    {
        return new self(error: $code);
    }

    private function with(string $operation): self
    {
        return new self($this->fields, $operation, $this->note, $this->error, $this->refunded);
    }
}

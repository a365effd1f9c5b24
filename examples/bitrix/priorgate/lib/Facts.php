<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * What the bank says of a session, in a callback or when asked.
 *
 * The names of fields, paths and statuses are ASSUMED, after a published article: the bank's partner API is not public.
 * They are in this file and in OrderBody.php; change them to those of your contract with the bank.
 */
final class Facts
{
    public const PATH_CREATE = '/installment/create';
    public const PATH_REFUND = '/installment/refund';
    public const PATH_STATUS = '/installment/';

    public const PENDING = 'PENDING';
    public const APPROVED = 'APPROVED';
    public const REJECTED = 'REJECTED';
    public const CANCELLED = 'CANCELLED';
    public const REFUNDED = 'REFUNDED';
    private const STATUSES = [self::PENDING, self::APPROVED, self::REJECTED, self::CANCELLED, self::REFUNDED];

    private const SESSION = '/^[A-Za-z0-9_-]{1,64}$/D';

    private function __construct(
        public readonly string $session,
        public readonly string $status,
        public readonly string $orderRef,
        public readonly ?Money $amount,
        public readonly ?string $currency,
        public readonly ?string $refundId,
        public readonly ?Money $refundAmount,
        public readonly ?Money $refunded,
    ) {
    }

    /**
     * @param array<mixed> $body signed by the bank, or answered by it over mutual TLS
     * @return self|null null where it is not understood: then nothing is done and nothing acknowledged
     */
    public static function read(array $body): ?self
    {
        $session = $body['session_id'] ?? null;
        $status = $body['status'] ?? null;
        if (!self::isSession($session) || !in_array($status, self::STATUSES, true)) {
            return null;
        }
        $money = [];
        foreach (['amount', 'refund_amount', 'refunded'] as $name) {
            $money[$name] = isset($body[$name]) ? Money::of($body[$name]) : null;
            if (isset($body[$name]) && $money[$name] === null) {
                return null;
            }
        }
        foreach (['order_ref', 'currency', 'refund_id'] as $name) {
            if (isset($body[$name]) && (!is_string($body[$name]) || strlen($body[$name]) > 128)) {
                return null;
            }
        }
        return new self(
            $session,
            $status,
            $body['order_ref'] ?? '',
            $money['amount'],
            $body['currency'] ?? null,
            $body['refund_id'] ?? null,
            $money['refund_amount'],
            $money['refunded'],
        );
    }

    /** A session's id goes into a path and a key. */
    public static function isSession(mixed $id): bool
    {
        return is_string($id) && preg_match(self::SESSION, $id) === 1;
    }
}

<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * The refunds of a payment as Bitrix has saved them. Kept in a field of the payment itself (PS_STATUS_MESSAGE), so that it
 * is saved with PAID and IS_RETURN in one UPDATE, or not at all.
 *
 * The bank and the shop both report one refund: the shop at the answer, the bank by its callback, in any order, and one
 * of the two reports may never be saved. So refunds are told apart by their ids, and the bank's running total counts too.
 */
final class RefundState
{
    /** 250 characters is what the field takes; a refund takes up to 24 of them. */
    private const MAX = 10;
    private const MAX_LENGTH = 226;
    private const FORM = '/^priorgate n=([0-9]{1,4}) total=([0-9]{1,14}) refunds=((?:[0-9a-f]{8}:[0-9]{1,14},?)*)$/D';

    /** @param array<string, int> $refunds kopecks by the beginning of the hash of the refund's id */
    private function __construct(
        public readonly int $saved,
        private readonly int $total,
        private readonly array $refunds,
    ) {
    }

    public static function read(mixed $field): self
    {
        if (!is_string($field) || preg_match(self::FORM, $field, $part) !== 1) {
            return new self(0, 0, []);
        }
        $refunds = [];
        foreach (array_filter(explode(',', $part[3])) as $refund) {
            [$id, $sum] = explode(':', $refund);
            $refunds[$id] = (int) $sum;
        }
        return new self((int) $part[1], (int) $part[2], $refunds);
    }

    /** How much has gone back. */
    public function refunded(): Money
    {
        return Money::ofMinor(max($this->total, array_sum($this->refunds)));
    }

    public function isEmpty(): bool
    {
        return $this->refunded()->isZero() && $this->saved === 0;
    }

    public function knows(string $refundId): bool
    {
        return isset($this->refunds[self::short($refundId)]);
    }

    /** Whether a refund of this sum was made. */
    public function has(Money $sum): bool
    {
        return in_array($sum->minor, $this->refunds, true);
    }

    public function isFull(): bool
    {
        return count($this->refunds) >= self::MAX || strlen((string) $this) > self::MAX_LENGTH;
    }

    /** A refund that the shop asked for was answered: the next one is another operation. */
    public function answered(string $refundId, Money $sum): self
    {
        $with = $this->withRefund($refundId, $sum);
        return new self($this->saved + 1, $with->total, $with->refunds);
    }

    /** The bank told of a refund, whoever asked for it. */
    public function told(?string $refundId, ?Money $sum, ?Money $total): self
    {
        $with = $refundId !== null && $sum !== null ? $this->withRefund($refundId, $sum) : $this;
        return new self($with->saved, max($with->total, $total->minor ?? 0), $with->refunds);
    }

    public function equals(self $other): bool
    {
        return (string) $this === (string) $other;
    }

    public function __toString(): string
    {
        $refunds = [];
        foreach ($this->refunds as $id => $sum) {
            $refunds[] = "$id:$sum";
        }
        return "priorgate n=$this->saved total=$this->total refunds=" . implode(',', $refunds);
    }

    private function withRefund(string $refundId, Money $sum): self
    {
        $id = self::short($refundId);
        if (isset($this->refunds[$id])) {
            return $this;
        }
        return new self($this->saved, $this->total, $this->refunds + [$id => $sum->minor]);
    }

    private static function short(string $refundId): string
    {
        // The first digit is a letter, so that PHP keeps it a string as the key of an array.
        return 'f' . substr(hash('sha256', $refundId), 0, 7);
    }
}

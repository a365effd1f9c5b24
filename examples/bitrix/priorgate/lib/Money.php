<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * An amount in whole kopecks. No float ever holds money here: what Bitrix gives as a float is read once, and refused if it
 * is no whole number of kopecks. No bcmath: not every shop has it.
 */
final class Money
{
    /** 12 digits before the point: more than any instalment, and every sum stays far inside 64 bits. */
    private const PLAIN = '/^(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,2}))?$/D';

    private function __construct(public readonly int $minor)
    {
    }

    public static function ofMinor(int $minor): self
    {
        return new self($minor);
    }

    /** A plain decimal such as `149.9` or `149.90`: no sign, no exponent, no leading zero. */
    public static function parse(string $text): ?self
    {
        if (preg_match(self::PLAIN, $text, $part) !== 1) {
            return null;
        }
        return new self((int) $part[1] * 100 + (int) str_pad($part[2] ?? '', 2, '0'));
    }

    /**
     * What Bitrix or JSON calls a number: a string as the database has it (`149.9000`), an integer or a float. Null where
     * it is not exactly an amount in kopecks: a payment of 10.005 must not become 10.01 on the way to the bank.
     */
    public static function of(mixed $value): ?self
    {
        if (is_int($value)) {
            $value = (string) $value;
        } elseif (is_float($value)) {
            if (!is_finite($value) || abs($value) >= 1e11) {
                return null;
            }
            // Four decimals, as the database keeps; below 1e11 a double still has them right.
            $value = number_format($value, 4, '.', '');
        }
        if (!is_string($value)) {
            return null;
        }
        return self::parse((string) preg_replace('/^([0-9]+\.[0-9]{2})0+$/D', '$1', $value));
    }

    public function plus(self $other): self
    {
        return new self($this->minor + $other->minor);
    }

    public function minus(self $other): ?self
    {
        return $other->minor > $this->minor ? null : new self($this->minor - $other->minor);
    }

    public function equals(self $other): bool
    {
        return $this->minor === $other->minor;
    }

    public function exceeds(self $other): bool
    {
        return $this->minor > $other->minor;
    }

    public function isZero(): bool
    {
        return $this->minor === 0;
    }

    /** The price of a line, rounded half up to the kopeck; the quantity has at most three decimals. */
    public function times(string $quantity): ?self
    {
        if (preg_match('/^([0-9]{1,9})(?:\.([0-9]{1,3}))?$/D', $quantity, $part) !== 1) {
            return null;
        }
        $thousandths = (int) $part[1] * 1000 + (int) str_pad($part[2] ?? '', 3, '0');
        if ($thousandths === 0 || $this->minor > intdiv(PHP_INT_MAX - 500, $thousandths)) {
            return null;
        }
        return new self(intdiv($this->minor * $thousandths + 500, 1000));
    }

    /** A month's part of it. Rounded up: the customer must not find that the months do not pay the price. */
    public function perMonth(int $months): self
    {
        return new self(intdiv($this->minor + $months - 1, $months));
    }

    public function __toString(): string
    {
        return sprintf('%d.%02d', intdiv($this->minor, 100), $this->minor % 100);
    }
}

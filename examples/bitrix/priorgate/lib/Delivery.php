<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * A callback of the bank as priorgate hands it over: Standard Webhooks, HMAC-SHA256 over `id.timestamp.body`. There is no
 * way to make one that did not verify. `sale_ps_result.php` is open to the world; this signature is the door.
 */
final class Delivery
{
    /** priorgate signs each attempt anew, so an old signature is a replay. */
    private const TOLERANCE = 300;
    private const MAX_BODY = 1 << 20;

    /** @param array<mixed> $event the signed body */
    private function __construct(
        public readonly string $id,
        public readonly string $timestamp,
        public readonly string $bank,
        public readonly array $event,
        private string $key,
    ) {
    }

    /**
     * @param array<string, list<string>> $secrets `whsec_…` by the bank that they belong to
     * @return self|null null for whatever is not a fresh delivery of priorgate's
     */
    public static function verify(
        array $secrets,
        string $id,
        string $timestamp,
        string $signatures,
        string $body,
        int $now,
    ): ?self {
        if (preg_match('/^[A-Za-z0-9_.-]{1,128}$/D', $id) !== 1 || preg_match('/^[1-9][0-9]{8,10}$/D', $timestamp) !== 1) {
            return null;
        }
        if (abs($now - (int) $timestamp) > self::TOLERANCE || strlen($body) > self::MAX_BODY) {
            return null;
        }
        // At most a few: each secret of a rotation signs once.
        $given = array_slice(explode(' ', $signatures), 0, 8);
        $bank = $key = null;
        foreach ($secrets as $name => $list) {
            foreach ($list as $secret) {
                $candidate = self::key($secret);
                if ($candidate === null) {
                    continue;
                }
                $good = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $candidate, true));
                foreach ($given as $signature) {
                    // All are tried, in constant time each: which one fits is nobody's business.
                    if (hash_equals($good, $signature)) {
                        // One secret for two banks would let the test bank pay live orders.
                        $bank = $bank === null || $bank === $name ? $name : '';
                        $key = $candidate;
                    }
                }
            }
        }
        if ($bank === null || $bank === '' || $key === null) {
            return null;
        }
        $event = json_decode($body, true, 32);
        return is_array($event) ? new self($id, $timestamp, $bank, $event, $key) : null;
    }

    /** The value of `Priorgate-Ack`: only the shop can make it, and only for this attempt. */
    public function acknowledgement(): string
    {
        return $this->id . ',' . base64_encode(hash_hmac('sha256', "ack.$this->id.$this->timestamp", $this->key, true));
    }

    private static function key(string $secret): ?string
    {
        if (!str_starts_with($secret, 'whsec_')) {
            return null;
        }
        $key = base64_decode(substr($secret, 6), true);
        return $key !== false && strlen($key) >= 24 && strlen($key) <= 64 ? $key : null;
    }
}

<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * A session at the bank for a payment. A second unpaid session harms nobody, but each needs a key of its own, and an answer
 * that was lost is asked for again under the old one: `create-<payment id>-<attempt>`.
 */
final class Creation
{
    /** An earlier attempt of which we know nothing is passed over, at most so often for one page. */
    private const TRIES = 3;

    /**
     * @param array<string, int|string> $facts of the ledger's row: BANK, AMOUNT, CURRENCY, TERM
     * @return array<string, int|string>|string the ledger's row, or the code of a message
     */
    public static function run(Client $client, int $paymentId, string $body, array $facts, int $now): array|string
    {
        for ($try = 0; $try < self::TRIES; $try++) {
            $attempt = Ledger::attempt($paymentId);
            // Two attempts look alike to the guard, and the second one is meant.
            $answer = $client->request(
                'POST',
                Facts::PATH_CREATE,
                $body,
                "create-$paymentId-$attempt",
                $attempt > 0,
            );
            if ($answer->isSuccess()) {
                Ledger::nextAttempt($paymentId, $attempt);
                $session = $answer->text('session_id');
                $url = $answer->text('payment_url') ?? '';
                if (!Facts::isSession($session) || !self::isPage($url, $facts['BANK'] === Settings::TEST)) {
                    return 'PAY_UNCLEAR';
                }
                if (Ledger::session($session) !== null) {
                    // The replay of an attempt whose end was not written down.
                    continue;
                }
                $row = ['PAYMENT_ID' => $paymentId, 'PAYMENT_URL' => $url, 'CREATED_AT' => $now] + $facts;
                Ledger::add($session, $row + ['ATTEMPT_NO' => $attempt]);
                return ['SESSION_ID' => $session] + $row;
            }
            if (in_array($answer->code, ['idempotency_key_reused', 'outcome_unknown', 'duplicate_request'], true)) {
                // This key was an earlier attempt's: another basket, or an answer that never came.
                Ledger::nextAttempt($paymentId, $attempt);
                continue;
            }
            if ($answer->code === 'operation_in_flight') {
                return 'PAY_BUSY';
            }
            if ($answer->outcome === Answer::NOT_SENT) {
                return 'PAY_NOT_SENT';
            }
            $again = $answer->state === 'refused' || in_array($answer->status, [401, 403, 429], true);
            if ($answer->outcome === Answer::ANSWERED && $again) {
                return 'PAY_NOT_SENT';
            }
            Ledger::nextAttempt($paymentId, $attempt);
            return $answer->outcome === Answer::ANSWERED ? 'PAY_REFUSED' : 'PAY_UNKNOWN';
        }
        return 'PAY_UNKNOWN';
    }

    private static function isPage(string $url, bool $test): bool
    {
        $parts = strlen($url) <= 2000 ? parse_url($url) : false;
        $schemes = $test ? ['https', 'http'] : ['https'];
        return is_array($parts) && ($parts['host'] ?? '') !== '' && in_array($parts['scheme'] ?? '', $schemes, true)
            && preg_match('/[\x00-\x20\x7f"<>\\\\]/', $url) === 0;
    }
}

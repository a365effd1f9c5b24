<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * One refund, sent at most once.
 *
 * The key is `refund-<session>-<n>-<a>`: n = the refunds of this session that Bitrix has saved, a = the definitive
 * refusals that were answered for this one. Nothing else is in it, above all not the sum and nothing random: if the save
 * fails after the bank has paid, the next try has the same key, so that priorgate replays the answer, or, where the sum is
 * another one, refuses. n moves only when Bitrix saves the payment, a only after a refusal was answered.
 */
final class Refund
{
    /**
     * @param array<string, string> $params of the message
     * @param RefundState|null $state to be saved with the payment, after a success
     */
    private function __construct(
        public readonly string $error,
        public readonly array $params = [],
        public readonly ?RefundState $state = null,
    ) {
    }

    /**
     * @param array<string, int|string> $session the ledger's row
     * @param string $comment of the operator; the word that confirms a second equal refund is looked for in it
     */
    public static function run(Client $client, array $session, RefundState $saved, Money $sum, string $comment): self
    {
        $id = (string) $session['SESSION_ID'];
        $n = $saved->saved;
        $a = $session['REFUND_N'] === $n ? (int) $session['REFUSALS'] : 0;
        $key = "refund-$id-$n-$a";
        // The body is the same at every try, byte for byte: no comment, no time in it.
        $body = OrderBody::json(['session_id' => $id, 'amount' => (string) $sum]);
        // Before the request: what is not written down is not sent.
        $asked = ['REFUND_N' => $n, 'REFUSALS' => $a, 'REFUND_KEY' => $key, 'REFUND_STATE' => 'asked'];
        Ledger::update($id, $session['REFUND_KEY'] === $key ? $asked : $asked + [
            'REFUND_SUM' => (string) $sum, 'REFUND_BASE' => (string) $saved->refunded(), 'REFUND_OPERATION' => '',
        ]);
        $word = self::word($key, $sum);
        $intended = str_contains($comment, $word);
        $answer = $client->request('POST', Facts::PATH_REFUND, $body, $key, $intended);
        self::note($id, $answer, $sum);
        if ($answer->isSuccess()) {
            $refundId = $answer->text('refund_id') ?? $key;
            return new self('', ['#SUM#' => (string) $sum], $saved->answered($refundId, $sum));
        }
        $params = [
            '#SUM#' => (string) $sum, '#OPERATION#' => $answer->operation, '#CODE#' => $answer->code, '#WORD#' => $word,
            '#STATUS#' => (string) $answer->status, '#BANK_CODE#' => $answer->bankCode(),
        ];
        if ($answer->isRefusal()) {
            // Compared: two who got the same answer count it once.
            Ledger::update($id, ['REFUSALS' => $a + 1], "REFUND_N = $n AND REFUSALS = $a");
            return new self('REFUND_REFUSED', $params);
        }
        if ($answer->code === 'idempotency_key_reused') {
            $unsent = in_array($answer->state, ['not_sent', 'refused'], true);
            $earlier = $session['REFUND_KEY'] === $key ? (string) $session['REFUND_SUM'] : '?';
            return new self($unsent ? 'REFUND_EARLIER_UNSENT' : 'REFUND_EARLIER', ['#EARLIER#' => $earlier] + $params);
        }
        $error = match (true) {
            // Asked in both cases; what was done before is another thing if it is only the bank's no.
            $answer->code === 'duplicate_request' => $a > 0 && !$saved->has($sum) ? 'REFUND_ASK_AGAIN' : 'REFUND_ASK',
            $answer->code === 'subject_busy' => 'REFUND_OTHER',
            $answer->code === 'operation_in_flight' => 'REFUND_RUNNING',
            $answer->outcome === Answer::NOT_SENT => 'REFUND_NOT_SENT',
            $answer->outcome === Answer::ANSWERED && $answer->state === 'refused' => 'REFUND_REFUSED_NOW',
            default => 'REFUND_UNKNOWN',
        };
        return new self($error, $params);
    }

    /**
     * What the operator writes into the refund's comment to say that a second equal refund is meant. It fits this one
     * refund only, so that an old comment confirms nothing.
     */
    public static function word(string $key, Money $sum): string
    {
        return 'repeat-' . substr(hash('sha256', "$key $sum"), 0, 6);
    }

    /** For the status button. Its loss loses no money, so it does not turn a refund that was made into an error. */
    private static function note(string $id, Answer $answer, Money $sum): void
    {
        $note = ['REFUND_STATE' => $answer->state !== '' ? $answer->state : $answer->outcome];
        if ($answer->operation !== '') {
            $note['REFUND_OPERATION'] = $answer->operation;
        }
        if ($answer->code !== 'idempotency_key_reused') {
            $note['REFUND_SUM'] = (string) $sum;
        }
        try {
            Ledger::update($id, $note);
        } catch (\Throwable $error) {
            \Bitrix\Sale\PaySystem\Logger::addError('priorgate: a refund was answered (' . $note['REFUND_STATE']
                . ') but not noted: ' . $error->getMessage());
        }
    }
}

<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/** What priorgate answered, or that nobody did. */
final class Answer
{
    /** The bank has answered; the body is its own unless `code` is set. */
    public const ANSWERED = 'answered';
    /** Provably, the bank has read nothing of the request. */
    public const NOT_SENT = 'not_sent';
    /** The bank may have acted. */
    public const UNKNOWN = 'unknown';

    /**
     * @param string $code priorgate's own problem, or '' for an answer of the bank
     * @param string $operation `op_…` of a guarded request
     * @param string $state of that operation: open, done, refused, not_sent, unknown; '' on an unguarded route
     * @param array<mixed>|null $json the body, where it is a JSON object
     */
    public function __construct(
        public readonly int $status,
        public readonly string $outcome,
        public readonly string $code = '',
        public readonly string $operation = '',
        public readonly string $state = '',
        public readonly ?array $json = null,
        public readonly bool $replayed = false,
        public readonly string $requestId = '',
    ) {
    }

    /** The bank did it. */
    public function isSuccess(): bool
    {
        return $this->code === '' && $this->outcome === self::ANSWERED && $this->status >= 200 && $this->status < 300;
    }

    /** The bank said no, for good: the operation under the key is done and will never be carried out. */
    public function isRefusal(): bool
    {
        return $this->code === '' && $this->state === 'done' && $this->status >= 400;
    }

    /** A short word of the bank's for its refusal, if it is one: never its text, which may hold a person's data. */
    public function bankCode(): string
    {
        $code = $this->json['error']['code'] ?? $this->json['code'] ?? null;
        return is_string($code) && preg_match('/^[A-Za-z0-9_.-]{1,40}$/D', $code) === 1 ? $code : '';
    }

    public function text(string $name): ?string
    {
        $value = $this->json[$name] ?? null;
        return is_string($value) ? $value : null;
    }
}

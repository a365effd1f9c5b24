<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

use Bitrix\Main\Application;

/** The pay system's form, read. Two banks side by side: the test one and the live one. */
final class Settings
{
    public const LIVE = 'live';
    public const TEST = 'test';

    /** @param \Closure(string): string $value of a code of the form */
    public function __construct(private \Closure $value)
    {
    }

    public function text(string $code): string
    {
        return trim(($this->value)($code));
    }

    public function bank(): string
    {
        return $this->text('PS_IS_TEST') === 'Y' ? self::TEST : self::LIVE;
    }

    /** Whether the shop wants PAID to follow the bank. */
    public function changesPaid(): bool
    {
        return $this->text('PS_CHANGE_STATUS_PAY') !== 'N';
    }

    public function term(): int
    {
        $term = $this->text('PRIORGATE_TERM');
        if (preg_match('/^[1-9][0-9]?$/D', $term) !== 1) {
            throw new ConfigError('PRIORGATE_TERM: expected a number of months');
        }
        return (int) $term;
    }

    /** How long a session's payment page lives, in seconds. Assumed: the bank's contract says. */
    public function sessionSeconds(): int
    {
        $minutes = $this->text('PRIORGATE_SESSION_MINUTES');
        return preg_match('/^[1-9][0-9]{0,4}$/D', $minutes) === 1 ? (int) $minutes * 60 : 1800;
    }

    public function orderRef(int $paymentId): string
    {
        $ref = $this->text('PRIORGATE_REF_PREFIX') . $paymentId;
        if (preg_match('/^[\x21-\x7e]{1,64}$/D', $ref) !== 1) {
            throw new ConfigError('PRIORGATE_REF_PREFIX: at most 50 visible ASCII characters');
        }
        return $ref;
    }

    /** The payment's number in a reference of ours, or 0. */
    public function paymentOf(string $orderRef): int
    {
        $prefix = $this->text('PRIORGATE_REF_PREFIX');
        $number = str_starts_with($orderRef, $prefix) ? substr($orderRef, strlen($prefix)) : '';
        return preg_match('/^[1-9][0-9]{0,9}$/D', $number) === 1 ? (int) $number : 0;
    }

    /** @throws ConfigError */
    public function client(string $bank): Client
    {
        $of = strtoupper($bank);
        $where = $this->text("PRIORGATE_SOCKET_$of");
        if ($where === '') {
            throw new ConfigError("PRIORGATE_SOCKET_$of is empty: give priorgate's socket for the $bank bank");
        }
        $file = $this->text("PRIORGATE_TOKEN_FILE_$of");
        $token = $file === '' ? '' : SecretFile::read($file, (string) Application::getDocumentRoot());
        return new Client($where, $token);
    }

    /**
     * The delivery secrets of both banks: a delivery says nothing of the bank that it is of but by its signature. Several
     * files, with commas between them, during a rotation.
     *
     * @param \Closure(string): void $complain of a file that cannot be used; without it nothing of its bank verifies
     * @return array<string, list<string>>
     */
    public function secrets(\Closure $complain): array
    {
        $secrets = [];
        foreach ([self::LIVE, self::TEST] as $bank) {
            foreach (explode(',', $this->text('PRIORGATE_SECRET_FILE_' . strtoupper($bank))) as $file) {
                if (trim($file) === '') {
                    continue;
                }
                try {
                    $secrets[$bank][] = SecretFile::read(trim($file), (string) Application::getDocumentRoot());
                } catch (ConfigError $error) {
                    $complain($error->getMessage());
                }
            }
        }
        return $secrets;
    }
}

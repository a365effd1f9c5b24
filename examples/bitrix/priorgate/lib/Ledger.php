<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

use Bitrix\Main\Application;

/**
 * What must survive a failed save of the order: which session belongs to which payment, which attempt is next, and what
 * was asked and answered of refunds. Two tables of our own, made at first use; the payment's own fields hold the rest.
 *
 * Every write is under the order's lock.
 */
final class Ledger
{
    private const SESSIONS = 'b_priorgate_session';
    private const ATTEMPTS = 'b_priorgate_attempt';
    private const TEXTS = ['BANK', 'AMOUNT', 'CURRENCY', 'PAYMENT_URL', 'STATUS', 'REFUND_KEY', 'REFUND_SUM',
        'REFUND_BASE', 'REFUND_OPERATION', 'REFUND_STATE'];
    private const NUMBERS = ['PAYMENT_ID', 'TERM', 'CREATED_AT', 'REFUND_N', 'REFUSALS'];

    private static bool $ready = false;

    /** @return array<string, int|string>|null */
    public static function session(string $sessionId): ?array
    {
        return self::row('SESSION_ID = ' . self::quoted($sessionId));
    }

    /** The latest session of a payment. @return array<string, int|string>|null */
    public static function latest(int $paymentId): ?array
    {
        return self::row("PAYMENT_ID = $paymentId");
    }

    /** @param array<string, int|string> $fields */
    public static function add(string $sessionId, array $fields): void
    {
        self::ready();
        $fields = ['SESSION_ID' => self::quoted($sessionId)] + self::prepared($fields + [
            'STATUS' => '', 'REFUND_N' => 0, 'REFUSALS' => 0, 'REFUND_KEY' => '', 'REFUND_SUM' => '',
            'REFUND_BASE' => '', 'REFUND_OPERATION' => '', 'REFUND_STATE' => '',
        ]);
        $names = implode(', ', array_keys($fields));
        self::execute('INSERT INTO ' . self::SESSIONS . " ($names) VALUES (" . implode(', ', $fields) . ')');
    }

    /** @param array<string, int|string> $fields */
    public static function update(string $sessionId, array $fields, string $only = ''): void
    {
        self::ready();
        $sets = [];
        foreach (self::prepared($fields) as $name => $value) {
            $sets[] = "$name = $value";
        }
        $where = 'SESSION_ID = ' . self::quoted($sessionId) . ($only === '' ? '' : " AND $only");
        self::execute('UPDATE ' . self::SESSIONS . ' SET ' . implode(', ', $sets) . " WHERE $where");
    }

    /** How many attempts of this payment to get a session have ended. */
    public static function attempt(int $paymentId): int
    {
        self::ready();
        $sql = 'SELECT ATTEMPT FROM ' . self::ATTEMPTS . " WHERE PAYMENT_ID = $paymentId";
        $row = Application::getConnection()->query($sql)->fetch();
        return $row ? (int) $row['ATTEMPT'] : 0;
    }

    /** The attempt has ended: the next one gets a key of its own. */
    public static function nextAttempt(int $paymentId, int $ended): void
    {
        self::ready();
        // MySQL counts changed rows, not found ones: so no guess from the count of an UPDATE.
        $sql = 'SELECT ATTEMPT FROM ' . self::ATTEMPTS . " WHERE PAYMENT_ID = $paymentId";
        $next = $ended + 1;
        self::execute(Application::getConnection()->query($sql)->fetch()
            ? 'UPDATE ' . self::ATTEMPTS . " SET ATTEMPT = $next WHERE PAYMENT_ID = $paymentId"
            : 'INSERT INTO ' . self::ATTEMPTS . " (PAYMENT_ID, ATTEMPT) VALUES ($paymentId, $next)");
    }

    /** For tests: another database. */
    public static function forget(): void
    {
        self::$ready = false;
    }

    /** @return array<string, int|string>|null */
    private static function row(string $where): ?array
    {
        self::ready();
        $names = implode(', ', ['SESSION_ID', ...self::NUMBERS, ...self::TEXTS]);
        $sql = "SELECT $names FROM " . self::SESSIONS . " WHERE $where ORDER BY CREATED_AT DESC, ATTEMPT_NO DESC";
        $row = Application::getConnection()->query($sql)->fetch();
        if (!$row) {
            return null;
        }
        $typed = ['SESSION_ID' => (string) $row['SESSION_ID']];
        foreach (self::NUMBERS as $name) {
            $typed[$name] = (int) $row[$name];
        }
        foreach (self::TEXTS as $name) {
            $typed[$name] = (string) $row[$name];
        }
        return $typed;
    }

    /**
     * @param array<string, int|string> $fields
     * @return array<string, string> as SQL
     */
    private static function prepared(array $fields): array
    {
        $prepared = [];
        foreach ($fields as $name => $value) {
            if (in_array($name, self::TEXTS, true)) {
                $prepared[$name] = self::quoted((string) $value);
            } elseif ($name === 'ATTEMPT_NO' || in_array($name, self::NUMBERS, true)) {
                $prepared[$name] = (string) (int) $value;
            } else {
                throw new \LogicException("no column $name");
            }
        }
        return $prepared;
    }

    private static function quoted(string $text): string
    {
        return "'" . Application::getConnection()->getSqlHelper()->forSql($text) . "'";
    }

    private static function execute(string $sql): void
    {
        Application::getConnection()->queryExecute($sql);
    }

    private static function ready(): void
    {
        if (self::$ready) {
            return;
        }
        $connection = Application::getConnection();
        // Asked first: MySQL ends a running transaction at a CREATE, even at one that creates nothing.
        if (!$connection->isTableExists(self::SESSIONS)) {
            self::execute('CREATE TABLE IF NOT EXISTS ' . self::SESSIONS . ' (
                SESSION_ID varchar(64) NOT NULL PRIMARY KEY,
                PAYMENT_ID int NOT NULL, ATTEMPT_NO int NOT NULL, BANK varchar(8) NOT NULL,
                AMOUNT varchar(16) NOT NULL, CURRENCY varchar(3) NOT NULL, TERM int NOT NULL,
                PAYMENT_URL varchar(2000) NOT NULL, CREATED_AT bigint NOT NULL, STATUS varchar(16) NOT NULL,
                REFUND_N int NOT NULL, REFUSALS int NOT NULL, REFUND_KEY varchar(128) NOT NULL,
                REFUND_SUM varchar(16) NOT NULL, REFUND_BASE varchar(16) NOT NULL, REFUND_OPERATION varchar(64) NOT NULL,
                REFUND_STATE varchar(24) NOT NULL)');
            self::execute('CREATE INDEX IX_PRIORGATE_PAYMENT ON ' . self::SESSIONS . ' (PAYMENT_ID)');
        }
        if (!$connection->isTableExists(self::ATTEMPTS)) {
            self::execute('CREATE TABLE IF NOT EXISTS ' . self::ATTEMPTS
                . ' (PAYMENT_ID int NOT NULL PRIMARY KEY, ATTEMPT int NOT NULL)');
        }
        self::$ready = true;
    }
}

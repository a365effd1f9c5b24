<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

use Bitrix\Main\Application;

/**
 * One order at a time, by a named lock of the database (GET_LOCK): Bitrix locks nothing itself, and two callbacks at once
 * would both find PAID=N and print two receipts. The order, not the session: it covers all sessions of all its payments.
 *
 * It is held to the end of the request, because Bitrix saves the order after the handler has returned. A connection that
 * dies gives it up.
 */
final class Lock
{
    /** @var array<string, object> */
    private static array $held = [];
    private static bool $registered = false;

    public static function take(int $orderId, int $seconds): bool
    {
        $name = "priorgate-order-$orderId";
        if (isset(self::$held[$name])) {
            return true;
        }
        $connection = Application::getConnection();
        if (!$connection->lock($name, $seconds)) {
            return false;
        }
        self::$held[$name] = $connection;
        if (!self::$registered) {
            self::$registered = true;
            // A persistent connection would keep it.
            register_shutdown_function(self::release(...));
        }
        return true;
    }

    public static function release(): void
    {
        foreach (self::$held as $name => $connection) {
            unset(self::$held[$name]);
            $connection->unlock($name);
        }
    }
}

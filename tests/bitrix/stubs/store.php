<?php

// The order store: what a test or the stand-in shop begins with.

declare(strict_types=1);

use Bitrix\Main\Application;
use Bitrix\Main\DB\Connection;

/** @param list<string> $sums of the payments of order 1 */
function priorgate_store(string $file, array $sums = ['149.90'], string $currency = 'BYN'): void
{
    $connection = new Connection($file);
    Application::$connection = $connection;
    if ($connection->isTableExists('b_sale_order')) {
        return;
    }
    $connection->query('CREATE TABLE b_sale_order (ID INTEGER PRIMARY KEY, CANCELED TEXT, PROPERTIES TEXT, BASKET TEXT,
        PRICE_DELIVERY TEXT)');
    $connection->query("CREATE TABLE b_sale_order_payment (ID INTEGER PRIMARY KEY, ORDER_ID INT, ACCOUNT_NUMBER TEXT,
        PAY_SYSTEM_ID INT, SUM TEXT, CURRENCY TEXT, PAID TEXT DEFAULT 'N', IS_RETURN TEXT DEFAULT 'N', PS_STATUS TEXT,
        PS_STATUS_CODE TEXT, PS_STATUS_DESCRIPTION TEXT, PS_STATUS_MESSAGE TEXT, PS_SUM TEXT, PS_CURRENCY TEXT,
        PS_RESPONSE_DATE TEXT, PS_INVOICE_ID TEXT, PAY_RETURN_COMMENT TEXT, MARKED TEXT DEFAULT 'N', REASON_MARKED TEXT)");
    $connection->query('CREATE TABLE receipts (PAYMENT_ID INT, PAID TEXT)');
    $connection->query("INSERT INTO b_sale_order VALUES (1, 'N',
        '{\"FIO\":\"Иван Иванов\",\"PHONE\":\"+375290000000\",\"EMAIL\":[\"ivan@example.by\"]}',
        '[[\"Чайник\",\"49.90\",\"2\"],[\"Чашка\",\"40.10\",\"1\"]]', '10.00')");
    foreach ($sums as $at => $sum) {
        $id = $at + 1;
        $connection->query("INSERT INTO b_sale_order_payment (ID, ORDER_ID, ACCOUNT_NUMBER, PAY_SYSTEM_ID, SUM, CURRENCY)
            VALUES ($id, 1, '1/$id', 7, '{$sum}00', '$currency')");
    }
}

/** One more order of the same goods, with one payment of the same number. */
function priorgate_order(): int
{
    $connection = Application::getConnection();
    $connection->query('INSERT INTO b_sale_order (CANCELED, PROPERTIES, BASKET, PRICE_DELIVERY)
        SELECT CANCELED, PROPERTIES, BASKET, PRICE_DELIVERY FROM b_sale_order WHERE ID = 1');
    $id = (int) $connection->query('SELECT last_insert_rowid() AS ID')->fetch()['ID'];
    $connection->query("INSERT INTO b_sale_order_payment (ID, ORDER_ID, ACCOUNT_NUMBER, PAY_SYSTEM_ID, SUM, CURRENCY)
        SELECT $id, $id, '$id/1', PAY_SYSTEM_ID, SUM, CURRENCY FROM b_sale_order_payment WHERE ID = 1");
    return $id;
}

<?php

// php -S ADDR tests/bitrix/shop.php: a small stand-in for a Bitrix shop, with the real handler. SHOP_DB is its database,
// SHOP_SOCKET priorgate's socket, SHOP_SECRET the delivery secret's file.
//
// It keeps Bitrix's habit: /bitrix/tools/sale_ps_result.php says 200 to whatever comes, but for what the handler says.
// POST /new makes an order; ?order=N names one (1 is there from the beginning). GET /pay, POST /admin/refund,
// /admin/refund?sum=50.00, /admin/check and GET /state answer JSON; ?fail_save=1 makes the order's save fail. For people
// and browsers there are /, /order and /admin (pages.php), in English and, with ?lang=ru, in Russian.

declare(strict_types=1);

error_reporting(E_ALL);
set_error_handler(static function (int $level, string $message, string $file, int $line): never {
    throw new ErrorException($message, 0, $level, $file, $line);
});

require __DIR__ . '/stubs/main.php';
require __DIR__ . '/stubs/sale.php';
require __DIR__ . '/stubs/paysystem.php';
require __DIR__ . '/stubs/store.php';
require __DIR__ . '/pages.php';
require __DIR__ . '/../../examples/bitrix/priorgate/handler.php';

use Bitrix\Main\Application;
use Bitrix\Main\Localization\Loc;
use Bitrix\Main\Request;
use Bitrix\Main\Server;
use Bitrix\Sale\Order;
use Bitrix\Sale\Payment;
use Bitrix\Sale\PaySystem\Context;
use Bitrix\Sale\PaySystem\Logger;
use Bitrix\Sale\PaySystem\Manager;

$APPLICATION = new class {
    public function RestartBuffer(): void
    {
    }
};
Application::$documentRoot = __DIR__;
Manager::$values = [
    'PRIORGATE_SOCKET_LIVE' => (string) getenv('SHOP_SOCKET'), 'PRIORGATE_SECRET_FILE_LIVE' => (string) getenv('SHOP_SECRET'),
    'PRIORGATE_TERM' => '12', 'PRIORGATE_REF_PREFIX' => (string) getenv('SHOP_PREFIX'), 'PS_CHANGE_STATUS_PAY' => 'Y',
    // The sandbox bank's page has no TLS, and only the test bank may have that.
    'PS_IS_TEST' => 'N',
];
if (getenv('SHOP_TEST') === 'Y') {
    Manager::$values['PS_IS_TEST'] = 'Y';
    foreach (['SOCKET', 'SECRET_FILE'] as $name) {
        Manager::$values["PRIORGATE_{$name}_TEST"] = Manager::$values["PRIORGATE_{$name}_LIVE"];
        Manager::$values["PRIORGATE_{$name}_LIVE"] = '';
    }
}
priorgate_store((string) getenv('SHOP_DB'));
Order::$failSaves = (int) ($_GET['fail_save'] ?? 0);
Loc::$language = ($_GET['lang'] ?? '') === 'ru' ? 'ru' : 'en';
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$number = (int) ($_GET['order'] ?? 1);
$scheme = ($_SERVER['HTTPS'] ?? '') === '' ? 'http' : 'https';
Context::$url = "$scheme://{$_SERVER['HTTP_HOST']}" . "/order?order=$number&lang=" . Loc::$language;
$payment = Order::load($number)?->getPaymentCollection()->getItemById($number);
if ($payment === null) {
    http_response_code(404);
    exit;
}
$service = Manager::getObjectById(Manager::PAY_SYSTEM);
$tell = static function (array $said): void {
    $text = json_encode($said, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR);
    header('Content-Type: application/json');
    header('Content-Length: ' . strlen($text));
    echo $text;
};
$posted = $_SERVER['REQUEST_METHOD'] === 'POST';
switch ($path) {
    case '/':
        priorgate_product_page($payment);
        break;
    case '/new':
        $tell(['order' => $posted ? priorgate_order() : 0]);
        break;
    case '/buy':
        header('Location: /order?order=' . ($posted ? priorgate_order() : 1) . '&lang=' . Loc::$language, true, 303);
        break;
    case '/order':
        priorgate_order_page($payment, $payment->isPaid() || $payment->isReturn() ? null : $service->initiatePay($payment));
        break;
    case '/admin':
        $said = [];
        if ($posted && ($_POST['do'] ?? '') === 'refund') {
            $result = $payment->setReturn(Payment::RETURN_PS);
            $result = $result->isSuccess() ? $payment->getCollection()->getOrder()->save() : $result;
            $said = $result->getErrorMessages();
        } elseif ($posted) {
            $service->check($payment);
        }
        priorgate_admin_page($payment, $said);
        break;
    case '/bitrix/tools/sale_ps_result.php':
        Manager::answer(new Request($_GET, new Server($_SERVER)));
        break;
    case '/pay':
        $result = $service->initiatePay($payment);
        $tell(['url' => $result->getPaymentUrl(), 'errors' => $result->getErrorMessages()]);
        break;
    case '/admin/refund':
        $payment->setFields(['PAY_RETURN_COMMENT' => $_GET['comment'] ?? '']);
        $result = isset($_GET['sum']) ? $service->refund($payment, $_GET['sum']) : $payment->setReturn(Payment::RETURN_PS);
        $result = $result->isSuccess() ? $payment->getCollection()->getOrder()->save() : $result;
        $tell(['errors' => $result->getErrorMessages()]);
        break;
    case '/admin/check':
        $service->check($payment);
        $tell(['said' => (string) $payment->getField('PS_STATUS_DESCRIPTION')]);
        break;
    case '/state':
        $names = ['PAID', 'IS_RETURN', 'PS_STATUS', 'PS_STATUS_CODE', 'PS_STATUS_MESSAGE', 'PS_INVOICE_ID', 'REASON_MARKED'];
        $row = Application::getConnection()->query("SELECT SUM(PAID = 'Y') AS Y, SUM(PAID = 'N') AS N FROM receipts
            WHERE PAYMENT_ID = $number")->fetch();
        $tell(array_combine($names, array_map(static fn ($name) => (string) $payment->getField($name), $names))
            + ['receipts' => (int) $row['Y'], 'returns' => (int) $row['N']]);
        break;
    default:
        http_response_code(404);
}
foreach (Logger::$errors as $error) {
    file_put_contents('php://stderr', "$error\n");
}

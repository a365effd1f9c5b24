<?php

// The stand-in shop's pages: the product with its badge, the order as the customer sees it, and as the operator does.
// Plain forms, as a shop's would be; the pay system's part of the order's page is the handler's own template.

declare(strict_types=1);

use Bitrix\Main\Localization\Loc;
use Bitrix\Sale\Payment;
use Bitrix\Sale\PaySystem\ServiceResult;

function priorgate_text(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

/** In the page's language. */
function priorgate_say(string $english, string $russian): string
{
    return priorgate_text(Loc::$language === 'ru' ? $russian : $english);
}

function priorgate_page(string $title, string $inside): void
{
    header('Content-Type: text/html; charset=utf-8');
    ?>
<!DOCTYPE html>
<html lang="<?= Loc::$language ?>">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title><?= $title ?></title>
<style>
body { margin: 0; background: #f6f4f0; color: #22201c; font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
header { padding: .875rem 1.5rem; background: #5b2a86; color: #fff; font-weight: 700; }
main { max-width: 42rem; margin: 1.5rem auto; padding: 1.5rem; background: #fff; border-radius: .75rem; }
h1 { margin-top: 0; line-height: 1.25; }
.price { margin: 0; font-size: 2rem; font-weight: 700; }
.priorgate-badge { width: fit-content; margin: .5rem 0 1.5rem; padding: .25rem .75rem; border-radius: 1rem; background: #e3f4e8; color: #14562f; font-weight: 700; }
button, .btn { display: inline-block; padding: .625rem 1.25rem; border: 0; border-radius: .5rem; background: #5b2a86; color: #fff; font: inherit; text-decoration: none; cursor: pointer; }
button.quiet { background: #e9e4ef; color: #3b1b57; }
form { display: inline-block; margin: 0 .5rem .5rem 0; }
table { width: 100%; margin-bottom: 1.5rem; border-collapse: collapse; }
th, td { padding: .375rem .75rem .375rem 0; border-bottom: 1px solid #e7e2da; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { width: 15rem; font-weight: 400; color: #6c665c; }
.good { color: #14693f; font-weight: 700; }
.bad { padding: .75rem 1rem; border-radius: .5rem; background: #fde8e6; color: #8c1d13; }
[role=note] { padding: .5rem 1rem; border-radius: .5rem; background: #fff3cd; }
</style>
</head>
<body>
<header><?= priorgate_say('Shop "Samovar" (a stand-in)', 'Магазин «Самовар» (макет)') ?></header>
<main>
<?= $inside ?>
</main>
</body>
</html>
    <?php
}

function priorgate_product_page(Payment $payment): void
{
    ob_start();
    ?>
<h1><?= priorgate_say('Kettle "Zarya" and a cup', 'Чайник «Заря» и чашка') ?></h1>
<p class="price"><?= priorgate_text(number_format($payment->getSum(), 2, Loc::$language === 'ru' ? ',' : '.', '')) ?> BYN</p>
    <?php
    $priorgateBadge = ['price' => number_format($payment->getSum(), 2, '.', ''), 'currency' => 'BYN', 'months' => 12];
    include __DIR__ . '/../../examples/bitrix/priorgate/template/badge.php';
    ?>
<form method="post" action="/buy?lang=<?= Loc::$language ?>">
<button id="buy"><?= priorgate_say('Buy by instalments', 'Купить в рассрочку') ?></button>
</form>
    <?php
    priorgate_page(priorgate_say('Kettle', 'Чайник'), (string) ob_get_clean());
}

/** @param ServiceResult|null $offered how it can be paid; null if it was paid or given back */
function priorgate_order_page(Payment $payment, ?ServiceResult $offered): void
{
    $title = priorgate_say('Order', 'Заказ') . ' ' . $payment->getId();
    ob_start();
    ?>
<h1><?= $title ?></h1>
<p id="state" class="<?= $payment->isPaid() ? 'good' : '' ?>"><?= match (true) {
    $payment->isPaid() => priorgate_say('Paid. Thank you!', 'Оплачен. Спасибо!'),
    $payment->isReturn() => priorgate_say('The money was given back.', 'Деньги возвращены.'),
    default => priorgate_say('Waits for payment.', 'Ждёт оплаты.'),
} ?></p>
    <?php
    foreach ($offered?->getBuyerErrorMessages() ?? [] as $message) {
        echo '<p class="bad">', priorgate_text($message), "</p>\n";
    }
    // The template escapes what it shows.
    echo $offered?->getTemplate() ?? '';
    priorgate_page($title, (string) ob_get_clean());
}

/** @param list<string> $said by what was just tried */
function priorgate_admin_page(Payment $payment, array $said): void
{
    $title = priorgate_say('Order', 'Заказ') . ' ' . $payment->getId() . priorgate_say(': for the operator', ': для оператора');
    $rows = ['PAID', 'IS_RETURN', 'SUM', 'CURRENCY', 'PS_STATUS_CODE', 'PS_STATUS_DESCRIPTION', 'PS_INVOICE_ID', 'REASON_MARKED'];
    ob_start();
    ?>
<h1><?= $title ?></h1>
    <?php foreach ($said as $message) : ?>
<p class="bad" id="said"><?= priorgate_text($message) ?></p>
    <?php endforeach ?>
<table>
    <?php foreach ($rows as $name) : ?>
<tr><th><?= $name ?></th><td id="<?= $name ?>"><?= priorgate_text((string) $payment->getField($name)) ?></td></tr>
    <?php endforeach ?>
</table>
    <?php if ($payment->isPaid()) : ?>
<form method="post"><button id="refund" name="do" value="refund"><?= priorgate_say('Refund', 'Вернуть деньги') ?></button></form>
    <?php endif ?>
<form method="post"><button id="check" class="quiet" name="do" value="check"><?= priorgate_say('Update from the bank', 'Обновить из банка') ?></button></form>
    <?php
    priorgate_page($title, (string) ob_get_clean());
}

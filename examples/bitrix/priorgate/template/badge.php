<?php

/**
 * "X BYN/month × N" for a product's page. Include it where the price is:
 *
 *     $priorgateBadge = ['price' => '149.90', 'currency' => 'BYN', 'months' => 12, 'nonce' => ''];
 *     include $_SERVER['DOCUMENT_ROOT'] . '/local/php_interface/include/sale_payment/priorgate/template/badge.php';
 *
 * Where the price changes without a reload (offers, quantity), tell the page:
 *
 *     document.dispatchEvent(new CustomEvent('priorgate:price', {detail: {price: '199.00'}}));
 *
 * The month's part is rounded up to the kopeck. Without scripts the first price stands.
 */

use Bitrix\Main\Localization\Loc;
use Sale\Handlers\PaySystem\Priorgate\Money;

/** @var array{price: mixed, currency?: string, months?: int, nonce?: string} $priorgateBadge */

require_once __DIR__ . '/../lib/Money.php';
Loc::loadMessages(__FILE__);

(static function (array $badge): void {
    $price = Money::of($badge['price'] ?? null);
    $months = (int) ($badge['months'] ?? 12);
    if ($price === null || $price->isZero() || $months < 1) {
        return;
    }
    $escape = static fn (string $text): string => htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
    $currency = (string) ($badge['currency'] ?? 'BYN');
    $month = $price->perMonth($months);
    $shown = (string) Loc::getMessage('PRIORGATE_B_SHOWN');
    $said = (string) Loc::getMessage('PRIORGATE_B_SAID');
    $comma = (string) Loc::getMessage('PRIORGATE_B_COMMA');
    $fill = static fn (string $text): string => strtr($text, [
        '#SUM#' => str_replace('.', $comma, (string) $month), '#CURRENCY#' => $currency, '#MONTHS#' => (string) $months,
    ]);
    ?>
<p class="priorgate-badge" data-months="<?= $months ?>" data-currency="<?= $escape($currency) ?>"
    data-comma="<?= $escape($comma) ?>" data-shown="<?= $escape($shown) ?>" data-said="<?= $escape($said) ?>">
    <span aria-hidden="true"><?= $escape($fill($shown)) ?></span>
    <span aria-live="polite" style="position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap"><?= $escape($fill($said)) ?></span>
</p>
    <?php
    // Once for a page, however many badges it has.
    if (!defined('PRIORGATE_BADGE_SCRIPT')) {
        define('PRIORGATE_BADGE_SCRIPT', true);
        $nonce = ($badge['nonce'] ?? '') === '' ? '' : ' nonce="' . $escape((string) $badge['nonce']) . '"';
        echo "<script$nonce>", file_get_contents(__DIR__ . '/badge.js'), '</script>';
    }
})($priorgateBadge);

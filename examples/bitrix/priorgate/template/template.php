<?php

use Bitrix\Main\Localization\Loc;

/** @var array{URL: string, SUM: string, CURRENCY: string, TERM: int, IS_TEST: bool} $params */

Loc::loadMessages(__FILE__);

$text = static fn (string $text): string => htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
?>
<div class="priorgate-pay">
    <?php if ($params['IS_TEST']) : ?>
        <p role="note"><strong><?= $text((string) Loc::getMessage('PRIORGATE_T_TEST')) ?></strong></p>
    <?php endif ?>
    <p><?= $text((string) Loc::getMessage('PRIORGATE_T_SUM', [
        '#SUM#' => $params['SUM'], '#CURRENCY#' => $params['CURRENCY'], '#TERM#' => (string) $params['TERM'],
    ])) ?></p>
    <p>
        <a class="btn btn-primary" href="<?= $text($params['URL']) ?>" rel="noreferrer">
            <?= $text((string) Loc::getMessage('PRIORGATE_T_PAY')) ?>
        </a>
    </p>
</div>

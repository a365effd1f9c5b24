<?php

use Bitrix\Main\Localization\Loc;
use Bitrix\Sale\PaySystem;

Loc::loadMessages(__FILE__);

$priorgateField = static function (string $code, string $group, int $sort, ?string $default = null): array {
    $field = [
        'NAME' => Loc::getMessage("PRIORGATE_F_$code"),
        'DESCRIPTION' => Loc::getMessage("PRIORGATE_F_{$code}_DESC") ?? '',
        'SORT' => $sort,
        'GROUP' => $group,
    ];
    return $default === null ? $field : $field + [
        'DEFAULT' => ['PROVIDER_KEY' => 'VALUE', 'PROVIDER_VALUE' => $default],
    ];
};
$priorgateFlag = static function (string $code, int $sort, string $default): array {
    return [
        'NAME' => Loc::getMessage("PRIORGATE_F_$code"),
        'DESCRIPTION' => Loc::getMessage("PRIORGATE_F_{$code}_DESC") ?? '',
        'SORT' => $sort,
        'GROUP' => 'GENERAL_SETTINGS',
        'INPUT' => ['TYPE' => 'Y/N'],
        'DEFAULT' => ['PROVIDER_KEY' => 'INPUT', 'PROVIDER_VALUE' => $default],
    ];
};

// Bitrix includes this file among its own variables, hence the long names. No path of a certificate or a key: PHP has none.
$data = [
    'NAME' => Loc::getMessage('PRIORGATE_NAME'),
    'SORT' => 500,
    'IS_AVAILABLE' => PaySystem\Manager::HANDLER_AVAILABLE_TRUE,
    'CODES' => [
        'PS_IS_TEST' => $priorgateFlag('PS_IS_TEST', 100, 'Y'),
        'PRIORGATE_SOCKET_TEST' => $priorgateField('SOCKET_TEST', 'CONNECT_SETTINGS_PRIORGATE', 200, '/run/priorgate/test.sock'),
        'PRIORGATE_TOKEN_FILE_TEST' => $priorgateField('TOKEN_FILE_TEST', 'CONNECT_SETTINGS_PRIORGATE', 210),
        'PRIORGATE_SECRET_FILE_TEST' => $priorgateField('SECRET_FILE_TEST', 'CONNECT_SETTINGS_PRIORGATE', 220),
        'PRIORGATE_SOCKET_LIVE' => $priorgateField('SOCKET_LIVE', 'CONNECT_SETTINGS_PRIORGATE', 300, '/run/priorgate/priorbank.sock'),
        'PRIORGATE_TOKEN_FILE_LIVE' => $priorgateField('TOKEN_FILE_LIVE', 'CONNECT_SETTINGS_PRIORGATE', 310),
        'PRIORGATE_SECRET_FILE_LIVE' => $priorgateField('SECRET_FILE_LIVE', 'CONNECT_SETTINGS_PRIORGATE', 320),
        'PRIORGATE_CALLBACK_URL' => $priorgateField('CALLBACK_URL', 'CONNECT_SETTINGS_PRIORGATE', 400),
        'PRIORGATE_SUCCESS_URL' => $priorgateField('SUCCESS_URL', 'CONNECT_SETTINGS_PRIORGATE', 410),
        'PRIORGATE_FAIL_URL' => $priorgateField('FAIL_URL', 'CONNECT_SETTINGS_PRIORGATE', 420),
        'PRIORGATE_TERM' => $priorgateField('TERM', 'CONNECT_SETTINGS_PRIORGATE', 500, '12'),
        'PRIORGATE_SESSION_MINUTES' => $priorgateField('SESSION_MINUTES', 'CONNECT_SETTINGS_PRIORGATE', 510, '30'),
        'PRIORGATE_REF_PREFIX' => $priorgateField('REF_PREFIX', 'CONNECT_SETTINGS_PRIORGATE', 520),
        'PRIORGATE_NAME_CODE' => $priorgateField('NAME_CODE', 'CONNECT_SETTINGS_PRIORGATE', 600),
        'PRIORGATE_PHONE_CODE' => $priorgateField('PHONE_CODE', 'CONNECT_SETTINGS_PRIORGATE', 610),
        'PRIORGATE_EMAIL_CODE' => $priorgateField('EMAIL_CODE', 'CONNECT_SETTINGS_PRIORGATE', 620),
        'PS_CHANGE_STATUS_PAY' => $priorgateFlag('PS_CHANGE_STATUS_PAY', 700, 'Y'),
    ],
];

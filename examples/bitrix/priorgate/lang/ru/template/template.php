<?php

$MESS['PRIORGATE_T_TEST'] = 'Тестовый банк: деньги ненастоящие.';
$MESS['PRIORGATE_T_SUM'] = 'К оплате в рассрочку: #SUM# #CURRENCY#, #TERM# мес.';
$MESS['PRIORGATE_T_PAY'] = 'Перейти на страницу банка';

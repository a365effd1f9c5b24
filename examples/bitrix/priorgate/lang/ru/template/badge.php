<?php

$MESS['PRIORGATE_B_SHOWN'] = '#SUM# #CURRENCY#/мес × #MONTHS#';
$MESS['PRIORGATE_B_SAID'] = 'Рассрочка: #SUM# #CURRENCY# в месяц, месяцев: #MONTHS#';
$MESS['PRIORGATE_B_COMMA'] = ',';

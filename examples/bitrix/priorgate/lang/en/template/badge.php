<?php

$MESS['PRIORGATE_B_SHOWN'] = '#SUM# #CURRENCY#/month × #MONTHS#';
$MESS['PRIORGATE_B_SAID'] = 'In instalments: #SUM# #CURRENCY# a month, #MONTHS# months';
$MESS['PRIORGATE_B_COMMA'] = '.';

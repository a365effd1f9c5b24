<?php

$MESS['PRIORGATE_T_TEST'] = 'Test bank: the money is not real.';
$MESS['PRIORGATE_T_SUM'] = 'To be paid by instalments: #SUM# #CURRENCY#, #TERM# months.';
$MESS['PRIORGATE_T_PAY'] = 'Go to the bank\'s page';

<?php

// To the buyer.
$MESS['PRIORGATE_PAY_NOT_SENT'] = 'The bank cannot be reached right now. Nothing was sent to it: please try again in a minute.';
$MESS['PRIORGATE_PAY_UNKNOWN'] = 'The bank\'s answer did not arrive. No money has moved: you agree to the instalment only on the bank\'s own page. Please try again.';
$MESS['PRIORGATE_PAY_REFUSED'] = 'The bank did not accept this order. Please choose another way to pay, or contact the shop.';
$MESS['PRIORGATE_PAY_UNCLEAR'] = 'The bank\'s answer was not understood. Please choose another way to pay, or contact the shop.';
$MESS['PRIORGATE_PAY_BUSY'] = 'This payment is being prepared. Please reload the page in a few seconds.';
$MESS['PRIORGATE_PAY_PAID'] = 'This payment has been made already.';
$MESS['PRIORGATE_PAY_RETURNED'] = 'This payment was refunded and cannot be made again. Please place a new order.';
$MESS['PRIORGATE_PAY_SUM'] = 'This sum or currency cannot be paid by instalments.';
$MESS['PRIORGATE_PAY_CONFIG'] = 'Payment by instalments is not set up. Please contact the shop.';
$MESS['PRIORGATE_ITEM_ORDER'] = 'Order #NUMBER#';
$MESS['PRIORGATE_ITEM_DELIVERY'] = 'Delivery';

// To the operator: what the bank says.
$MESS['PRIORGATE_NOTE_PENDING'] = 'The customer has not decided yet.';
$MESS['PRIORGATE_NOTE_APPROVED'] = 'The bank has approved the instalment.';
$MESS['PRIORGATE_NOTE_REJECTED'] = 'The bank has rejected the instalment.';
$MESS['PRIORGATE_NOTE_CANCELLED'] = 'The instalment was cancelled.';
$MESS['PRIORGATE_NOTE_REFUNDED'] = 'Refunded in full: #REFUNDED#.';
$MESS['PRIORGATE_NOTE_REFUNDED_PART'] = 'Refunded in part: #REFUNDED#. The payment stays paid.';
$MESS['PRIORGATE_NOTE_CONFLICT'] = 'The bank says #STATUS# of a payment that it had approved. Nothing was changed: ask the bank.';

// To the operator: a notification that was not applied.
$MESS['PRIORGATE_CB_SIGNATURE'] = 'The notification is not signed by priorgate, or too old.';
$MESS['PRIORGATE_CB_BODY'] = 'The bank\'s notification was not understood. Compare its fields with lib/Facts.php.';
$MESS['PRIORGATE_CB_BUSY'] = 'Another request is working on this order. Try again.';
$MESS['PRIORGATE_CB_PAYMENT'] = 'The notification belongs to no payment, to another one, or to the other bank (test or live).';
$MESS['PRIORGATE_CB_PAY_SYSTEM'] = 'The payment belongs to another pay system by now. The bank has news of it: see its order at the bank.';
$MESS['PRIORGATE_CB_SUM'] = 'The bank\'s sum is not the payment\'s. Nothing was changed: compare both.';
$MESS['PRIORGATE_CB_SUM_FRACTION'] = 'The payment\'s sum has fractions of a kopeck. Correct it.';
$MESS['PRIORGATE_CB_CURRENCY'] = 'The bank\'s currency is not the payment\'s. Nothing was changed.';
$MESS['PRIORGATE_CB_SECOND_SESSION'] = 'The bank has approved a second instalment for a payment that was made already. Cancel one of them at the bank.';
$MESS['PRIORGATE_CB_REFUND_OF_UNPAID'] = 'The bank tells of a refund for a payment that was never made. Ask the bank.';
$MESS['PRIORGATE_CB_REFUND_UNCLEAR'] = 'The bank tells of a refund without saying how much. Ask the bank and correct the order by hand.';
$MESS['PRIORGATE_CB_REFUND_SUM'] = 'By the bank\'s word more was refunded than was paid. Ask the bank.';
$MESS['PRIORGATE_CB_REFUND_TOO_MANY'] = 'More refunds of one payment than can be told apart. Correct the order by hand.';

// To the operator: a refund that was not made, or of which that is not known.
$MESS['PRIORGATE_REFUND_BUSY'] = 'Another request is working on this order. Nothing was sent: try again.';
$MESS['PRIORGATE_REFUND_STALE'] = 'The payment has changed since this page was opened. Nothing was sent: reload it.';
$MESS['PRIORGATE_REFUND_NO_SESSION'] = 'The payment has no session at the bank: nothing to refund through it.';
$MESS['PRIORGATE_REFUND_SUM'] = 'The sum is not possible: more than is left, nothing, or fractions of a kopeck. Nothing was sent.';
$MESS['PRIORGATE_REFUND_TOO_MANY'] = 'Too many refunds of one payment. Make the rest at the bank.';
$MESS['PRIORGATE_REFUND_CONFIG'] = 'priorgate is not set up: #ERROR#';
$MESS['PRIORGATE_REFUND_REFUSED'] = 'The bank has refused the refund of #SUM# (HTTP #STATUS# #BANK_CODE#). No money has moved.';
$MESS['PRIORGATE_REFUND_REFUSED_NOW'] = 'The bank refuses requests right now (HTTP #STATUS#). No money has moved: try again later.';
$MESS['PRIORGATE_REFUND_NOT_SENT'] = 'The refund was not sent (#CODE#). No money has moved: try again.';
$MESS['PRIORGATE_REFUND_UNKNOWN'] = 'It is not known whether the bank has refunded #SUM#. Do NOT repeat it in another way: ask the bank. Then the administrator ends operation #OPERATION# with «priorgate operations resolve».';
$MESS['PRIORGATE_REFUND_RUNNING'] = 'This refund is running. Nothing was sent a second time: look again in a minute.';
$MESS['PRIORGATE_REFUND_OTHER'] = 'Another refund of this session is not settled (#OPERATION#). Nothing was sent. Ask the bank about that one first: «priorgate operations show #OPERATION#».';
$MESS['PRIORGATE_REFUND_EARLIER'] = 'An earlier refund of #EARLIER# was made: save it first. Refund exactly #EARLIER# once more: no money will move, and Bitrix will have it. Nothing was sent now.';
$MESS['PRIORGATE_REFUND_EARLIER_UNSENT'] = 'A refund of #EARLIER# was asked for before and never reached the bank. Repeat it with that sum. Nothing was sent now.';
$MESS['PRIORGATE_REFUND_ASK'] = 'The same refund of #SUM# was made within a day (#OPERATION#). Nothing was sent now. If a second one is really meant, write #WORD# into the comment of the refund and repeat it.';
$MESS['PRIORGATE_REFUND_ASK_AGAIN'] = 'The bank has refused this same refund of #SUM# within a day. Nothing was sent now. To ask the bank once more, write #WORD# into the comment of the refund and repeat it.';

// To the operator: the answer of the status button.
$MESS['PRIORGATE_CHECK_NO_SESSION'] = 'The payment has no session at the bank.';
$MESS['PRIORGATE_CHECK_FAILED'] = 'The bank could not be asked (HTTP #STATUS# #CODE#). Nothing was changed.';
$MESS['PRIORGATE_CHECK_SAYS'] = 'The bank says: #STATUS#, refunded #REFUNDED#.';
$MESS['PRIORGATE_CHECK_PART'] = 'A part was refunded; the payment stays as it is.';
$MESS['PRIORGATE_CHECK_MADE'] = 'The refund of #SUM# whose outcome was unknown was made: «priorgate operations resolve #OPERATION# --as done», then refund the same sum again to save it.';
$MESS['PRIORGATE_CHECK_NOT_MADE'] = 'The refund of #SUM# whose outcome is unknown does not show at the bank. Ask the bank whether it has it: only its word allows «priorgate operations resolve #OPERATION# --as not-sent».';

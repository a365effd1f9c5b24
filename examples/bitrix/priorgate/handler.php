<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem;

use Bitrix\Main\HttpRequest;
use Bitrix\Main\Localization\Loc;
use Bitrix\Main\Request;
use Bitrix\Main\Type\DateTime;
use Bitrix\Sale\Payment;
use Bitrix\Sale\PaySystem;
use Bitrix\Sale\PaySystem\ServiceResult;
use Sale\Handlers\PaySystem\Priorgate\ConfigError;
use Sale\Handlers\PaySystem\Priorgate\Creation;
use Sale\Handlers\PaySystem\Priorgate\Delivery;
use Sale\Handlers\PaySystem\Priorgate\Facts;
use Sale\Handlers\PaySystem\Priorgate\Ledger;
use Sale\Handlers\PaySystem\Priorgate\Lock;
use Sale\Handlers\PaySystem\Priorgate\Money;
use Sale\Handlers\PaySystem\Priorgate\OrderBody;
use Sale\Handlers\PaySystem\Priorgate\Refund;
use Sale\Handlers\PaySystem\Priorgate\RefundState;
use Sale\Handlers\PaySystem\Priorgate\Settings;
use Sale\Handlers\PaySystem\Priorgate\Verdict;

foreach (
    ['Answer', 'Client', 'ConfigError', 'Creation', 'Delivery', 'Facts', 'Ledger', 'Lock', 'Money', 'OrderBody', 'Refund',
        'RefundState', 'SecretFile', 'Settings', 'Verdict'] as $part
) {
    require_once __DIR__ . "/lib/$part.php";
}
unset($part);

Loc::loadMessages(__FILE__);

/**
 * Instalments of a bank, through priorgate: the shop's certificate and key are there, nothing of them is here.
 *
 * Bitrix calls: initiatePay at each display of the payment page, getPaymentIdFromRequest and processRequest for a
 * notification, refund when an operator sets the payment's return, check at the "update" link of the order's page. There
 * is no event handler: a refund in OnSalePaymentEntitySaved would answer the bank's refund with another one.
 */
class PriorgateHandler extends PaySystem\ServiceHandler implements PaySystem\IRefund, PaySystem\ICheckable
{
    /** How long a second tab waits for the first one's session. */
    private const WAIT = 10;

    private ?Delivery $delivery = null;

    /** @return list<string> */
    public function getCurrencyList()
    {
        return ['BYN'];
    }

    /** @return array<string, string> the query of deliver.url: it chooses the handler, it proves nothing */
    public static function getIndicativeFields()
    {
        return ['BX_HANDLER' => 'PRIORGATE'];
    }

    /** With several pay systems of this handler `BX_PAYSYSTEM_CODE=<id>` chooses one. */
    protected static function isMyResponseExtended(Request $request, $paySystemId)
    {
        $chosen = $request->get('BX_PAYSYSTEM_CODE');
        return $chosen === null || $chosen === '' || (string) $chosen === (string) $paySystemId;
    }

    /** @return ServiceResult */
    public function initiatePay(Payment $payment, ?Request $request = null)
    {
        $result = new ServiceResult();
        try {
            $session = $this->sessionOf($payment);
        } catch (ConfigError $error) {
            PaySystem\Logger::addError('priorgate: ' . $error->getMessage());
            $session = 'PAY_CONFIG';
        }
        if (is_string($session)) {
            // Visible to the buyer: none of these texts holds anything of the bank's answer.
            $result->addError(PaySystem\Error::createForBuyer(self::message($session), $session));
            return $result;
        }
        if ((string) $payment->getField('PS_INVOICE_ID') !== $session['SESSION_ID']) {
            $result->setPsData([
                'PS_INVOICE_ID' => $session['SESSION_ID'],
                'PS_STATUS' => 'N',
                'PS_STATUS_CODE' => Facts::PENDING,
                'PS_STATUS_DESCRIPTION' => self::message('NOTE_PENDING'),
                'PS_RESPONSE_DATE' => new DateTime(),
            ]);
        }
        $result->setPaymentUrl((string) $session['PAYMENT_URL']);
        $this->setExtraParams([
            'URL' => $session['PAYMENT_URL'],
            'SUM' => $session['AMOUNT'],
            'CURRENCY' => $session['CURRENCY'],
            'TERM' => $session['TERM'],
            'IS_TEST' => $session['BANK'] === Settings::TEST,
        ]);
        $shown = $this->showTemplate($payment, 'template');
        if ($shown->isSuccess()) {
            $result->setTemplate($shown->getTemplate());
        } else {
            $result->addErrors($shown->getErrors());
        }
        return $result;
    }

    /**
     * The session that is alive, or a new one. The page is displayed often; a session is made once.
     *
     * @return array<string, int|string>|string the ledger's row, or the code of a message
     */
    private function sessionOf(Payment $payment): array|string
    {
        $sum = Money::of($payment->getField('SUM'));
        $currency = (string) $payment->getField('CURRENCY');
        if ($sum === null || $sum->isZero() || !in_array($currency, $this->getCurrencyList(), true)) {
            return 'PAY_SUM';
        }
        if (!Lock::take($payment->getOrderId(), self::WAIT)) {
            return 'PAY_BUSY';
        }
        $fresh = $this->saved($payment);
        if ($fresh === null || $fresh['PAID'] === 'Y') {
            return 'PAY_PAID';
        }
        if ($fresh['IS_RETURN'] !== 'N' || !RefundState::read($fresh['PS_STATUS_MESSAGE'])->isEmpty()) {
            return 'PAY_RETURNED';
        }
        $settings = $this->settings($payment);
        $facts = ['BANK' => $settings->bank(), 'AMOUNT' => (string) $sum, 'CURRENCY' => $currency,
            'TERM' => $settings->term()];
        $id = (int) $payment->getId();
        $now = time();
        $latest = Ledger::latest($id);
        if (
            $latest !== null && array_diff_assoc($facts, $latest) === []
            && in_array($latest['STATUS'], ['', Facts::PENDING], true)
            && $now - $latest['CREATED_AT'] < $settings->sessionSeconds()
        ) {
            return $latest;
        }
        $here = $this->service->getContext()->getUrl();
        $body = OrderBody::build($payment, [
            'ref' => $settings->orderRef($id),
            'sum' => $sum,
            'currency' => $currency,
            'term' => $facts['TERM'],
            'title' => self::message('ITEM_ORDER', ['#NUMBER#' => (string) $payment->getField('ACCOUNT_NUMBER')]),
            'delivery' => self::message('ITEM_DELIVERY'),
            'codes' => [
                'name' => $settings->text('PRIORGATE_NAME_CODE'),
                'phone' => $settings->text('PRIORGATE_PHONE_CODE'),
                'email' => $settings->text('PRIORGATE_EMAIL_CODE'),
            ],
            'urls' => [
                'success_url' => $settings->text('PRIORGATE_SUCCESS_URL') ?: $here,
                'fail_url' => $settings->text('PRIORGATE_FAIL_URL') ?: $here,
                'callback_url' => $settings->text('PRIORGATE_CALLBACK_URL'),
            ],
        ]);
        return Creation::run($settings->client($facts['BANK']), $id, $body, $facts, $now);
    }

    /**
     * Before Bitrix loads the order: the signature is checked and the order locked, so that what is loaded is not old.
     * Where this gives nothing, Bitrix answers an empty 200, which is no acknowledgement: priorgate comes again.
     *
     * @return int|false
     */
    public function getPaymentIdFromRequest(Request $request)
    {
        $delivery = $this->verified($request);
        $facts = $delivery === null ? null : Facts::read($delivery->event);
        if ($delivery === null || $facts === null) {
            if ($delivery !== null) {
                PaySystem\Logger::addError("priorgate: $delivery->id: " . self::message('CB_BODY'));
            }
            return false;
        }
        $paymentId = $this->paymentOf($delivery, $facts);
        if ($paymentId === 0) {
            PaySystem\Logger::addError("priorgate: $delivery->id: " . self::message('CB_PAYMENT'));
            return false;
        }
        $type = $this->service->getField('ENTITY_REGISTRY_TYPE') ?? Payment::getRegistryType();
        [$orderId] = PaySystem\Manager::getIdsByPayment($paymentId, $type);
        return $orderId > 0 && Lock::take($orderId, 0) ? $paymentId : false;
    }

    /** @return ServiceResult */
    public function processRequest(Payment $payment, Request $request)
    {
        $result = new ServiceResult();
        $delivery = $this->verified($request);
        if ($delivery === null) {
            return self::refuse($result, 'CB_SIGNATURE');
        }
        $facts = Facts::read($delivery->event);
        if ($facts === null) {
            return self::refuse($result, 'CB_BODY');
        }
        if (!Lock::take($payment->getOrderId(), 0)) {
            return self::refuse($result, 'CB_BUSY');
        }
        if ($this->paymentOf($delivery, $facts) !== (int) $payment->getId()) {
            return self::refuse($result, 'CB_PAYMENT');
        }
        if ((int) $payment->getPaymentSystemId() !== (int) $this->service->getField('ID')) {
            return self::refuse($result, 'CB_PAY_SYSTEM');
        }
        $this->apply($result, $payment, $facts);
        if ($result->isSuccess()) {
            if (Ledger::session($facts->session) === null) {
                // Its answer was lost on the way to us; from now on it can be refunded.
                Ledger::add($facts->session, [
                    'PAYMENT_ID' => (int) $payment->getId(), 'ATTEMPT_NO' => 0, 'BANK' => $delivery->bank,
                    'AMOUNT' => (string) $facts->amount, 'CURRENCY' => (string) $facts->currency, 'TERM' => 0,
                    'PAYMENT_URL' => '', 'CREATED_AT' => 0, 'STATUS' => $facts->status,
                ]);
            }
            $this->delivery = $delivery;
        }
        return $result;
    }

    /** The acknowledgement, only when Bitrix has saved what was told. */
    public function sendResponse(ServiceResult $result, Request $request)
    {
        global $APPLICATION;
        $APPLICATION->RestartBuffer();
        $applied = $this->delivery !== null && $result->isSuccess() && $result->isResultApplied();
        if ($this->delivery !== null && $applied) {
            header('Priorgate-Ack: ' . $this->delivery->acknowledgement());
        } else {
            http_response_code(503);
        }
        header('Content-Type: application/json');
        echo $applied ? '{"ack":true}' : '{"ack":false}';
        Lock::release();
        return '';
    }

    /**
     * @param mixed $refundableSum what Bitrix gives: the payment's whole sum from the order's page, any sum from code
     * @return ServiceResult
     */
    public function refund(Payment $payment, $refundableSum)
    {
        $result = new ServiceResult();
        try {
            $refund = $this->refunded($payment, $refundableSum);
        } catch (ConfigError $error) {
            return self::refuse($result, 'REFUND_CONFIG', ['#ERROR#' => $error->getMessage()]);
        }
        if (is_string($refund)) {
            return self::refuse($result, $refund);
        }
        if ($refund->state === null) {
            return self::refuse($result, $refund->error, $refund->params);
        }
        // Saved by Bitrix together with IS_RETURN and PAID. Until then the next try has the same key.
        $sum = Money::of($payment->getField('SUM'));
        $whole = $sum !== null && $refund->state->refunded()->equals($sum);
        $given = ['#REFUNDED#' => (string) $refund->state->refunded()];
        $set = $payment->setFields([
            'PS_STATUS' => $whole ? 'N' : 'Y',
            'PS_STATUS_CODE' => Facts::REFUNDED,
            'PS_STATUS_DESCRIPTION' => self::message($whole ? 'NOTE_REFUNDED' : 'NOTE_REFUNDED_PART', $given),
            'PS_STATUS_MESSAGE' => (string) $refund->state,
            'PS_RESPONSE_DATE' => new DateTime(),
        ]);
        if (!$set->isSuccess()) {
            return $result->addErrors($set->getErrors());
        }
        if ($whole) {
            $result->setOperationType(ServiceResult::MONEY_LEAVING);
        }
        return $result;
    }

    /** What became of the refund, or the code of a message if nothing was asked. */
    private function refunded(Payment $payment, mixed $wanted): Refund|string
    {
        if (!Lock::take($payment->getOrderId(), 0)) {
            return 'REFUND_BUSY';
        }
        // Another click may have been faster: what is on this page may be old.
        $fresh = $this->saved($payment);
        if (
            $fresh === null || $fresh['PAID'] !== 'Y'
            || $fresh['PS_STATUS_MESSAGE'] !== (string) $payment->getField('PS_STATUS_MESSAGE')
        ) {
            return 'REFUND_STALE';
        }
        $session = Ledger::session($fresh['PS_INVOICE_ID']);
        if ($session === null || $session['PAYMENT_ID'] !== (int) $payment->getId()) {
            return 'REFUND_NO_SESSION';
        }
        $state = RefundState::read($fresh['PS_STATUS_MESSAGE']);
        $sum = Money::of($payment->getField('SUM'));
        $wanted = Money::of($wanted);
        $left = $sum?->minus($state->refunded());
        if ($sum === null || $wanted === null || $wanted->isZero() || $left === null || $left->isZero()) {
            return 'REFUND_SUM';
        }
        if ($wanted->equals($sum)) {
            // "All of it" is all that is left.
            $wanted = $left;
        }
        if ($wanted->exceeds($left)) {
            return 'REFUND_SUM';
        }
        if ($state->isFull()) {
            return 'REFUND_TOO_MANY';
        }
        $client = $this->settings($payment)->client((string) $session['BANK']);
        return Refund::run($client, $session, $state, $wanted, (string) $payment->getField('PAY_RETURN_COMMENT'));
    }

    /**
     * Asks the bank (`GET /installment/{id}`, assumed) and says what it means. Bitrix drops the errors of a check, so
     * whatever there is to say goes into the description.
     *
     * @return ServiceResult
     */
    public function check(Payment $payment)
    {
        $result = new ServiceResult();
        try {
            $said = $this->asked($payment, $result);
        } catch (ConfigError $error) {
            $said = self::message('REFUND_CONFIG', ['#ERROR#' => $error->getMessage()]);
        }
        // The field takes 512 characters.
        $said = preg_match('/^.{0,500}/us', $said, $part) === 1 ? $part[0] : '';
        $result->setPsData(
            ['PS_STATUS_DESCRIPTION' => $said, 'PS_RESPONSE_DATE' => new DateTime()] + $result->getPsData()
        );
        return $result;
    }

    private function asked(Payment $payment, ServiceResult $result): string
    {
        $id = (string) $payment->getField('PS_INVOICE_ID');
        $session = Facts::isSession($id) ? Ledger::session($id) : null;
        if ($session === null) {
            return self::message('CHECK_NO_SESSION');
        }
        if (!Lock::take($payment->getOrderId(), self::WAIT)) {
            return self::message('CB_BUSY');
        }
        $answer = $this->settings($payment)->client((string) $session['BANK'])->request('GET', Facts::PATH_STATUS . $id);
        $facts = $answer->isSuccess() && $answer->json !== null ? Facts::read($answer->json) : null;
        if ($facts === null || $facts->session !== $id) {
            return self::message('CHECK_FAILED', ['#CODE#' => $answer->code, '#STATUS#' => (string) $answer->status]);
        }
        $refunded = $facts->refunded ?? Money::ofMinor(0);
        $said = self::message('CHECK_SAYS', ['#STATUS#' => $facts->status, '#REFUNDED#' => (string) $refunded]);
        if ($facts->status !== Facts::REFUNDED && !$refunded->isZero()) {
            $said .= ' ' . self::message('CHECK_PART');
        } elseif ($facts->status !== Facts::REFUNDED && (string) $payment->getField('PAID') !== 'Y') {
            // Only what pays: a refund is taken from the bank's notification, which says which one it was.
            $fresh = $this->saved($payment);
            if ($fresh !== null && $fresh['PAID'] !== 'Y') {
                $this->apply($result, $payment, $facts);
                if (!$result->isSuccess()) {
                    $said .= ' ' . implode(' ', $result->getErrorMessages());
                    $result->getErrorCollection()->clear();
                }
            }
        }
        return $said . $this->unknown($session, $refunded);
    }

    /**
     * What the bank's total means for a refund whose outcome is unknown: a person decides, with these figures.
     *
     * @param array<string, int|string> $session
     */
    private function unknown(array $session, Money $refunded): string
    {
        $open = !in_array($session['REFUND_STATE'], ['', 'done', 'not_sent', 'refused', 'answered'], true);
        $asked = Money::of($session['REFUND_SUM']);
        $base = Money::of($session['REFUND_BASE']);
        if (!$open || $asked === null || $base === null) {
            return '';
        }
        // Against what had gone back when it was asked for: its notification may be here already.
        $made = !$base->plus($asked)->exceeds($refunded);
        return ' ' . self::message($made ? 'CHECK_MADE' : 'CHECK_NOT_MADE', [
            '#SUM#' => (string) $asked, '#OPERATION#' => (string) $session['REFUND_OPERATION'],
        ]);
    }

    /** Does what the bank's word asks for: fields, operation, or an error. */
    private function apply(ServiceResult $result, Payment $payment, Facts $facts): void
    {
        $verdict = Verdict::of($facts, [
            'sum' => Money::of($payment->getField('SUM')),
            'currency' => (string) $payment->getField('CURRENCY'),
            'paid' => $payment->isPaid(),
            'returned' => $payment->isReturn(),
            'approved' => $payment->getField('PS_STATUS') === 'Y',
            'invoice' => (string) $payment->getField('PS_INVOICE_ID'),
            'refunds' => RefundState::read($payment->getField('PS_STATUS_MESSAGE')),
        ]);
        if ($verdict->error !== '') {
            self::refuse($result, 'CB_' . $verdict->error);
            return;
        }
        // A session that has ended is not shown to the customer again.
        Ledger::update($facts->session, ['STATUS' => $facts->status]);
        if ($verdict->fields === []) {
            return;
        }
        $given = ['#REFUNDED#' => (string) $verdict->refunded, '#STATUS#' => $facts->status];
        $result->setPsData($verdict->fields + [
            'PS_STATUS_DESCRIPTION' => self::message('NOTE_' . $verdict->note, $given),
            'PS_RESPONSE_DATE' => new DateTime(),
        ]);
        if ($verdict->operation !== '' && $this->settings($payment)->changesPaid()) {
            $pays = $verdict->operation === Verdict::PAY;
            $result->setOperationType($pays ? ServiceResult::MONEY_COMING : ServiceResult::MONEY_LEAVING);
        }
    }

    /** The payment that a signed body is about, or 0: by our own ledger, else by the reference that we gave the bank. */
    private function paymentOf(Delivery $delivery, Facts $facts): int
    {
        $settings = $this->settings(null);
        $named = $settings->paymentOf($facts->orderRef);
        $session = Ledger::session($facts->session);
        if ($session === null) {
            // The answer that named the session was lost. Only the bank that the form chooses may speak of it.
            return $delivery->bank === $settings->bank() ? $named : 0;
        }
        $agree = $delivery->bank === $session['BANK'] && ($facts->orderRef === '' || $named === $session['PAYMENT_ID']);
        return $agree ? (int) $session['PAYMENT_ID'] : 0;
    }

    private function verified(Request $request): ?Delivery
    {
        $server = $request->getServer();
        $header = static fn (string $name): string => is_string($server->get($name)) ? $server->get($name) : '';
        if ($header('HTTP_WEBHOOK_SIGNATURE') === '') {
            return null;
        }
        $complain = static function (string $text): void {
            PaySystem\Logger::addError("priorgate: $text");
        };
        return Delivery::verify(
            $this->settings(null)->secrets($complain),
            $header('HTTP_WEBHOOK_ID'),
            $header('HTTP_WEBHOOK_TIMESTAMP'),
            $header('HTTP_WEBHOOK_SIGNATURE'),
            (string) HttpRequest::getInput(),
            time(),
        );
    }

    /**
     * The payment as the database has it now, under the lock.
     *
     * @return array{PAID: string, IS_RETURN: string, PS_STATUS_MESSAGE: string, PS_INVOICE_ID: string}|null
     */
    private function saved(Payment $payment): ?array
    {
        $names = ['PAID', 'IS_RETURN', 'PS_STATUS_MESSAGE', 'PS_INVOICE_ID'];
        $row = $payment::getList(['select' => $names, 'filter' => ['=ID' => $payment->getId()]])->fetch();
        if (!$row) {
            return null;
        }
        return array_map(static fn (mixed $value): string => (string) $value, array_intersect_key($row, array_flip($names)));
    }

    private function settings(?Payment $payment): Settings
    {
        return new Settings(function (string $code) use ($payment): string {
            $value = $this->getBusinessValue($payment, $code);
            return is_scalar($value) ? (string) $value : '';
        });
    }

    /** @param array<string, string> $params */
    private static function refuse(ServiceResult $result, string $code, array $params = []): ServiceResult
    {
        $result->addError(PaySystem\Error::create(self::message($code, $params), $code));
        return $result;
    }

    /** @param array<string, string> $params */
    private static function message(string $code, array $params = []): string
    {
        return (string) Loc::getMessage("PRIORGATE_$code", $params);
    }
}

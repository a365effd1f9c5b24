(function () {
    'use strict';
    // In kopecks and in whole numbers: 0.1 + 0.2 has no place in a price.
    function kopecks(price) {
        var part = /^(\d{1,12})(?:\.(\d{1,2}))?$/.exec(String(price));
        return part ? Number(part[1]) * 100 + Number(((part[2] || '') + '00').slice(0, 2)) : 0;
    }
    function perMonth(price, months) {
        var all = kopecks(price);
        var rest = all % months;
        var up = (all - rest) / months + (rest > 0 ? 1 : 0);
        return Math.floor(up / 100) + '.' + ('0' + (up % 100)).slice(-2);
    }
    function fill(text, badge, sum) {
        return text.split('#SUM#').join(sum.replace('.', badge.dataset.comma))
            .split('#CURRENCY#').join(badge.dataset.currency)
            .split('#MONTHS#').join(badge.dataset.months);
    }
    if (typeof document === 'undefined') {
        module.exports = {kopecks: kopecks, perMonth: perMonth, fill: fill};
        return;
    }
    document.addEventListener('priorgate:price', function (event) {
        var price = event.detail && event.detail.price;
        document.querySelectorAll('.priorgate-badge').forEach(function (badge) {
            badge.hidden = kopecks(price) === 0;
            if (!badge.hidden) {
                var sum = perMonth(price, Number(badge.dataset.months));
                badge.children[0].textContent = fill(badge.dataset.shown, badge, sum);
                badge.children[1].textContent = fill(badge.dataset.said, badge, sum);
            }
        });
    });
}());

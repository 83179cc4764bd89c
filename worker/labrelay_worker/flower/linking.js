// Turns addresses in results into links. They are read from text and set as text, so nothing in them is markup.
(function () {
    'use strict';
    var ADDRESS = /https?:\/\/[^\s"'<>\\]+[^\s"'<>\\.,;:)\]}]/g,
        PLACES = '#tasks-table td, #task-page code';

    function link(node) {
        var text = node.nodeValue, last = 0, found, anchor, parts = document.createDocumentFragment();
        ADDRESS.lastIndex = 0;
        while ((found = ADDRESS.exec(text)) !== null) {
            parts.appendChild(document.createTextNode(text.slice(last, found.index)));
            anchor = document.createElement('a');
            anchor.href = found[0];
            anchor.target = '_blank';
            anchor.rel = 'noopener noreferrer';
            anchor.textContent = found[0];
            parts.appendChild(anchor);
            last = found.index + found[0].length;
        }
        if (last) {
            parts.appendChild(document.createTextNode(text.slice(last)));
            node.parentNode.replaceChild(parts, node);
        }
    }

    function linkAll() {
        document.querySelectorAll(PLACES).forEach(function (place) {
            if (place.closest('a') || place.querySelector('a')) {
                return;
            }
            Array.prototype.filter.call(place.childNodes, function (node) {
                return node.nodeType === Node.TEXT_NODE;
            }).forEach(link);
        });
    }

    linkAll();
    new MutationObserver(linkAll).observe(document.body, {childList: true, subtree: true});
}());

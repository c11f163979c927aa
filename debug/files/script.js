// Follows the pools: every event is the body of the page as the server would make it now.
'use strict';

const main = document.querySelector('main');
const live = document.getElementById('live');
const retry = 3000; // milliseconds
let source, timer;

function say(state, text) {
	if (live.textContent !== text) live.textContent = text;
	live.className = state;
}

function follow() {
	stop();
	source = new EventSource('?format=events');
	source.onmessage = (event) => {
		const next = new DOMParser().parseFromString('<main>' + JSON.parse(event.data) + '</main>', 'text/html');
		update(main, next.querySelector('main'));
		say('on', 'live');
	};
	source.onerror = () => {
		say('off', 'no connection');
		if (source.readyState === EventSource.CLOSED) timer = setTimeout(follow, retry);
	};
}

function stop() {
	clearTimeout(timer);
	if (source) source.close();
}

// update makes old the same as next, with as few changes as there are: what is open or selected
// stays so. Elements with an id are found again by it, wherever they have moved to.
function update(old, next) {
	if (old.nodeType !== Node.ELEMENT_NODE) {
		if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
		return;
	}
	for (const { name, value } of next.attributes) {
		if (old.getAttribute(name) !== value) old.setAttribute(name, value);
	}
	for (const { name } of [...old.attributes]) {
		if (!next.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
	}
	let at = old.firstChild;
	for (const child of [...next.childNodes]) {
		const same = child.id ? document.getElementById(child.id) : at;
		if (same && same.nodeName === child.nodeName && (same.id || '') === (child.id || '')) {
			update(same, child);
			if (same === at) at = at.nextSibling;
			else old.insertBefore(same, at);
		} else {
			old.insertBefore(document.importNode(child, true), at);
		}
	}
	while (at) {
		const gone = at;
		at = at.nextSibling;
		gone.remove();
	}
}

// A page that nobody sees holds no connection, of which browsers have few.
document.addEventListener('visibilitychange', () => document.hidden ? stop() : follow());
if (!document.hidden) follow();

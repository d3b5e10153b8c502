// The only script: it renews home and the page of a rotation that is under way. Without it the page says how to renew it.
// Each event leads to one request for the same page, whose marked parts are taken over. It takes no focus, and it leaves
// a form as it is: when what the form rests on has changed, the form only loses its buttons.
'use strict';
(function () {
  const main = document.querySelector('[data-stream]');
  if (!main) return;
  const line = document.getElementById('not-live');
  const said = document.getElementById('said');
  const stale = 45e3;
  const pause = 5e3;
  let heard = Date.now();
  let source = null;
  let ended = false;
  let asking = false;
  let again = false;
  let later = 0;
  let announced = 0;
  let news = said.textContent;
  let title = document.title;
  // The countdown follows the server's clock.
  let ahead = Date.now() - Date.parse(main.dataset.made);

  const clock = (at) => new Date(at - ahead).toISOString().slice(11, 19);

  function span(seconds) {
    const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
    if (hours >= 24) return Math.floor(hours / 24) + (hours < 48 ? ' day' : ' days');
    if (hours) return hours + ' h ' + (minutes % 60) + ' min';
    return minutes ? minutes + ' min ' + (seconds % 60) + ' s' : seconds + ' s';
  }

  function count() {
    const timer = document.querySelector('[data-until]');
    if (!timer) return;
    const left = Math.max(0, Math.floor((Date.parse(timer.dataset.until) - (Date.now() - ahead)) / 1000));
    timer.textContent = span(left);
    timer.nextElementSibling.textContent = timer.dataset.left;
    document.title = span(left) + ' · ' + title;
  }

  function tick() {
    const silent = !ended && Date.now() - heard > stale;
    if (silent && line.hidden) line.textContent = 'Not live since ' + clock(heard) + ' UTC; trying again.';
    if (silent || !ended) line.hidden = !silent;
    if (!silent && !ended) count();
    announce();
  }

  function stop(text) {
    ended = true;
    if (source) source.close();
    if (text) {
      line.textContent = text;
      line.hidden = false;
    }
  }

  // A screen reader hears of a change once a minute at most.
  function announce() {
    if (news === said.textContent || Date.now() - announced < 60e3) return;
    announced = Date.now();
    said.textContent = news;
  }

  function untouched(form) {
    const typed = (field) => field.type !== 'hidden' && field.value !== field.defaultValue;
    return !form.contains(document.activeElement) && !Array.from(form.querySelectorAll('input, textarea')).some(typed);
  }

  function disarm(form, text) {
    form.querySelectorAll('button').forEach((it) => it.remove());
    const told = document.createElement('p');
    const link = document.createElement('a');
    told.setAttribute('role', 'alert');
    link.href = location.pathname;
    link.textContent = 'Look again.';
    told.append(text + ' ', link);
    form.append(told);
  }

  function replace(fresh) {
    const whole = fresh.querySelector('[data-made]');
    if (main.hasAttribute('data-still') && !whole.hasAttribute('data-still')) {
      main.removeAttribute('data-still');
      main.replaceChildren(...whole.cloneNode(true).childNodes);
    }
    document.querySelectorAll('[data-live]').forEach((old) => {
      const part = fresh.querySelector('[data-live="' + old.dataset.live + '"]');
      if (!part || part.isEqualNode(old)) return;
      if (old.contains(document.activeElement) || old.querySelector('form')) return;
      const open = Array.from(old.querySelectorAll('details'), (it) => it.open);
      part.querySelectorAll('details').forEach((it, at) => { it.open = Boolean(open[at]); });
      old.replaceWith(document.adoptNode(part));
    });
    document.title = title = fresh.title;
    ahead = Date.now() - Date.parse(whole.dataset.made);
    news = fresh.getElementById('said').textContent;
    announce();
    count();
  }

  function take(fresh) {
    const form = main.querySelector('form[data-rests]');
    if (!form) return replace(fresh);
    const now = fresh.querySelector('form[data-rests]');
    const moved = !now || now.dataset.rests !== form.dataset.rests;
    // Nobody decides on a page that changes while he reads it.
    if (main.hasAttribute('data-still')) {
      if (moved) {
        disarm(form, 'This proposal changed.');
        stop('');
      }
      return;
    }
    replace(fresh);
    if (!moved) return;
    const place = fresh.querySelector('[data-live="decision"]');
    if (place && untouched(form)) form.closest('[data-live]').replaceWith(document.adoptNode(place));
    else disarm(form, 'It moved on, and nothing was sent.');
  }

  // Its address shows a page of another kind now, such as what an operator has to do.
  function leave() {
    const form = main.querySelector('form[data-rests]');
    if (!form || (untouched(form) && !main.hasAttribute('data-still'))) return location.reload();
    disarm(form, 'It moved on, and nothing was sent.');
    stop('');
  }

  async function renew() {
    // A button stays under the pointer.
    if (main.querySelector('.button:hover, .tiles a:hover')) {
      clearTimeout(later);
      later = setTimeout(renew, 1000);
      return;
    }
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      const answer = await fetch(location.pathname, { cache: 'no-store', headers: { 'x-keywheel-renewal': '1' } });
      if (answer.redirected) return stop('You are signed out. Load the page again to sign in.');
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
      heard = Date.now();
      if (fresh.querySelector('[data-made]')) take(fresh);
      else leave();
    } catch {
      // The line about it appears when nothing was heard for a while.
    } finally {
      asking = false;
      if (again) {
        again = false;
        renew();
      }
    }
  }

  function listen() {
    source = new EventSource(main.dataset.stream);
    source.addEventListener('open', () => { heard = Date.now(); });
    source.addEventListener('alive', () => { heard = Date.now(); });
    source.addEventListener('change', () => { heard = Date.now(); renew(); });
    source.addEventListener('end', () => { heard = Date.now(); stop(''); renew(); });
    source.addEventListener('error', () => {
      // A browser comes back by itself but after a refusal, which a page explains.
      if (source.readyState !== EventSource.CLOSED || ended) return;
      renew();
      setTimeout(() => { if (!ended) listen(); }, pause);
    });
  }

  listen();
  tick();
  setInterval(tick, 1000);
})();

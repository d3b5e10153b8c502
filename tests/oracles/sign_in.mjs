// A browser without scripts that signs in to Keywheel at a real provider, for scripts/interop-oidc: it follows every
// redirect, fills in the provider's own forms, and keeps cookies by host.
// Usage: node sign_in.mjs SERVER ISSUER
import assert from 'node:assert/strict';

const [server, issuer] = process.argv.slice(2);
const redirect = 'http://localhost:8440'; // what Keywheel calls itself; the test reaches it at SERVER

class Browser {
  cookies = new Map();
  async send(url, options = {}) {
    url = new URL(url);
    if (url.origin === redirect) url = new URL(url.pathname + url.search, server);
    const of = this.cookies.get(url.host) ?? this.cookies.set(url.host, new Map()).get(url.host);
    const cookie = [...of].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(url, { redirect: 'manual', ...options, headers: { ...options.headers, cookie } });
    for (const set of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
      if (/max-age=0|expires=thu, 01 jan 1970/i.test(set)) of.delete(name); else of.set(name, value);
    }
    return { answer, url, text: await answer.text() };
  }
  async follow(url, options) {
    let it = await this.send(url, options);
    for (let hops = 0; it.answer.status >= 301 && it.answer.status <= 308; hops += 1) {
      assert(hops < 20, 'it is sent in circles');
      it = await this.send(new URL(it.answer.headers.get('location'), it.url));
    }
    return it;
  }
  // Submits the form of a page of the provider.
  async submit({ url, text }, fields = {}) {
    const action = /<form[^>]*action="([^"]+)"/.exec(text)[1].replaceAll('&amp;', '&');
    const hidden = [...text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)"/g)];
    const body = new URLSearchParams([...hidden.map(([, name, value]) => [name, value]), ...Object.entries(fields)]);
    return this.follow(new URL(action, url), { method: 'POST', body });
  }
  // Signs in as `who`; the last page.
  async signIn(who) {
    let page = await this.follow(`${server}/login/oidc/real?to=/`);
    if (/name="login"/.test(page.text)) page = await this.submit(page, { login: who, password: 'any' });
    while (page.url.origin === issuer && /name="prompt" value="consent"/.test(page.text)) page = await this.submit(page);
    return page;
  }
  async home() {
    return this.send(`${server}/`);
  }
}

const approver = new Browser();
const page = await approver.signIn('approvers@example.com');
assert.equal(page.answer.status, 200, page.text);
assert(page.text.includes('mail:approvers@example.com') && page.text.includes('approver'), page.text);
console.log('signed in with a verified address and groups');

const unverified = await new Browser().signIn('unverified@example.com');
assert(unverified.text.includes('oidc:real/unverified@example.com'), unverified.text);
console.log('an address that is not verified names nobody');

const denied = new Browser();
const form = await denied.follow(`${server}/login/oidc/real`);
const abort = /href="([^"]+\/abort)"/.exec(form.text)[1];
const cancelled = await denied.follow(new URL(abort, form.url));
assert(cancelled.answer.status === 403 && cancelled.text.includes('access_denied'), cancelled.text);
console.log('a person who cancels there is told so');

const foreign = await new Browser().send(page.url);
assert.equal(foreign.answer.status, 303);

assert((await fetch(`${issuer}/rotate-keys`, { method: 'POST' })).ok);
let rotated;
for (let tries = 0; tries < 40; tries += 1) {
  rotated = await new Browser().signIn('approvers@example.com');
  if (rotated.text.includes('mail:approvers@example.com')) break;
  await new Promise((done) => setTimeout(done, 500));
}
assert(rotated.text.includes('mail:approvers@example.com'), rotated.text);
console.log('signed in after the provider changed its key');

const home = await approver.home();
const token = /name="form" value="([^"]+)"/.exec(home.text)[1];
const out = await approver.send(`${server}/logout`, { method: 'POST', body: new URLSearchParams({ form: token }) });
const there = /href="([^"]+)">Sign out at real too/.exec(out.text)[1].replaceAll('&#38;', '&');
const ending = await approver.follow(there);
assert.equal(ending.answer.status, 200, ending.text);
const ended = await approver.submit(ending);
assert(ended.url.pathname === '/login' && ended.text.includes('Sign in with real'), `${ended.url} ${ended.text}`);
assert.equal((await approver.home()).answer.status, 303);
console.log('signed out here and there');

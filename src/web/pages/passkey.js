// A form with a passkey: its button asks the browser for an answer, and sends that with the form. Without this script, or
// without an answer, the server says what is missing.
'use strict';
(function () {
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (it) => it.charCodeAt(0));
  const text = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)))
    .replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');
  const known = (form) => form.dataset.known.split(' ').filter(Boolean)
    .map((id) => ({ type: 'public-key', id: bytes(id) }));

  async function made(form) {
    const { response } = await navigator.credentials.create({
      publicKey: {
        challenge: bytes(form.dataset.challenge),
        rp: { id: form.dataset.site, name: 'Keywheel' },
        user: { id: bytes(form.dataset.user), name: form.dataset.person, displayName: form.dataset.person },
        pubKeyCredParams: [-7, -8, -257].map((alg) => ({ type: 'public-key', alg })),
        excludeCredentials: known(form),
        authenticatorSelection: { userVerification: 'required', residentKey: 'preferred' },
        attestation: 'none',
      },
    });
    return { clientData: text(response.clientDataJSON), attestation: text(response.attestationObject) };
  }

  async function signed(form) {
    const { rawId, response } = await navigator.credentials.get({
      publicKey: {
        challenge: bytes(form.dataset.challenge),
        rpId: form.dataset.site,
        allowCredentials: known(form),
        userVerification: 'required',
      },
    });
    return {
      id: text(rawId),
      clientData: text(response.clientDataJSON),
      authenticatorData: text(response.authenticatorData),
      signature: text(response.signature),
    };
  }

  function say(words) {
    const line = document.getElementById('passkey-said');
    line.textContent = words;
    line.hidden = false;
  }

  document.addEventListener('click', async (event) => {
    const button = event.target.closest('[data-sign]');
    if (!button || !window.PublicKeyCredential) return;
    event.preventDefault();
    const form = button.form;
    button.disabled = true;
    try {
      const answer = await (form.dataset.passkey === 'create' ? made(form) : signed(form));
      form.elements.answer.value = JSON.stringify(answer);
      const decision = document.createElement('input');
      Object.assign(decision, { type: 'hidden', name: button.name, value: button.value });
      form.append(decision);
      form.submit();
    } catch (error) {
      const why = error.name === 'InvalidStateError'
        ? 'This device has a passkey for these pages already.'
        : 'The passkey was not used (' + error.name + ').';
      say(why + ' Nothing was changed.');
      button.disabled = false;
    }
  });
})();

"""Judges the simulator's tokens with PyJWT against the key sets it publishes. Usage: check_tokens.py SIMULATOR"""

import hashlib
import hmac

import jwt
from cryptography.hazmat.primitives import serialization
from desk import Simulator, refuses

sim = Simulator()
tenant = "0b1f6471-1bf0-4dda-aec3-111122223333"
entra = {"tenantId": tenant, "audience": "api://keywheel"}
vault = "https://v.vault.azure.net/keys/k/9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10"
google_key = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7"
email = "push@p.iam.gserviceaccount.com"
app = "4962773b-9cdb-44cf-a8bf-237846a00ab7"


class Wrong(Exception):
    """A claim that the library does not look at."""


def judge(keys, token, issuer, audience, **claims):
    key = jwt.PyJWKClient(sim.url + keys).get_signing_key_from_jwt(token)
    needed = {"require": ["exp", "iat", "aud", "iss"]}
    read = jwt.decode(token, key.key, algorithms=["RS256"], issuer=issuer, audience=audience, options=needed)
    for name, value in claims.items():
        if read.get(name) != value:
            raise Wrong(f"{name} is {read.get(name)!r}")
    return read


def bearer(headers):
    return headers["Authorization"].removeprefix("Bearer ")


def azure(version, token):
    names = {1: (f"https://sts.windows.net/{tenant}/", "appid"), 2: (f"https://login.microsoftonline.com/{tenant}/v2.0", "azp")}
    issuer, who = names[version]
    return judge(f"/senders/entra/{tenant}/keys", token, issuer, "api://keywheel", tid=tenant, **{who: app})


def google(token):
    issuer = "https://accounts.google.com"
    return judge("/senders/google/certs", token, issuer, sim.receiver.url, email=email, email_verified=True)


for version in (1, 2):
    order = {"key": vault, "entra": {**entra, "version": version}}
    headers, _ = sim.one("azure-event-grid", **order)
    claims = azure(version, bearer(headers))
    assert claims["ver"] == f"{version}.0" and 23 * 3600 < claims["exp"] - claims["iat"] <= 25 * 3600
    for forge in "signature stranger alg-none hs256 kid audience issuer expired early app-id".split():
        headers, _ = sim.one("azure-event-grid", forge=forge, **order)
        refuses(forge, lambda: azure(version, bearer(headers)), jwt.PyJWTError, Wrong)
headers, _ = sim.one("gcp-pubsub", key=google_key, email=email)
assert google(bearer(headers))["azp"]
for forge in "signature stranger alg-none hs256 kid audience issuer expired early email email-unverified".split():
    headers, _ = sim.one("gcp-pubsub", key=google_key, email=email, forge=forge)
    refuses(forge, lambda: google(bearer(headers)), jwt.PyJWTError, Wrong)

# HS256 is the attack it claims to be: who takes the public key for a shared secret accepts it.
headers, _ = sim.one("gcp-pubsub", key=google_key, email=email, forge="hs256")
head, payload, signature = bearer(headers).split(".")
key = jwt.PyJWKClient(sim.url + "/senders/google/certs").get_signing_keys()[0].key
pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
assert jwt.utils.base64url_decode(signature) == hmac.new(pem, f"{head}.{payload}".encode(), hashlib.sha256).digest()
print("tokens: PyJWT verifies those of Entra (both versions) and of Google, and refuses 31 forgeries")

#!/usr/bin/env python3
"""Verifies an evidence bundle of Keywheel. Written from docs/evidence.md alone; needs Python 3.9 and `cryptography`.
Prints a line for each fault, as RULE: WHAT, and ends with 1 when there is one. Time stamps of authorities are left out."""
import argparse, base64, binascii, csv, datetime, hashlib, io, json, re, struct, sys
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

COLUMNS = {"rotations.csv": "rotation_id project_id project_name provider old_key new_key trigger reason requested_by proposed_at planned_for policy_version proposal_hash approvals_required approvals_given approved_at first_sent_at patched_at finished_at state cause atlas_event atlas_event_id atlas_event_at atlas_event_by first_row last_row", "approvals.csv": "rotation_id voter at method comment passkey nonce proposal_hash", "passkeys.csv": "passkey algorithm public_key pem holder enrolled_at confirmed_by counts_from", "keys.csv": "project_id project_name key since source until interval due days days_late exception", "inventory.csv": "project_id project_name environment owners provider place key key_since valid due policy_version credential lookup tracked_since observed_at", "policies.csv": "kind version at who action subject row content", "mails.csv": "message_id kind project_id rotation_id recipient created_at state attempts sent_at answer", "findings.csv": "kind project_id rotation_id at row count detail"}
FIXED = ["README.txt", "audit.jsonl", *COLUMNS]; KIND = "application/vnd.keywheel.evidence-manifest+json"; FINAL = {"completed", "rolled_back", "failed", "rejected", "cancelled", "expired", "superseded", "accepted", "closed"}; SPKI = bytes.fromhex("302a300506032b6570032100")
MARK, STRENGTH = {"seq": 0, "hash": 0}, {"session": 1, "api": 1, "passkey": 2}; MANIFEST = {"format": 0, "madeAt": 0, "madeBy": 0, "period": {"from": 0, "to": 0}, "project": 0, "installation": {"fingerprint": 0, "publicKey": 0, "keyId": 0}, "versions": {"keywheel": 0, "schema": 0}, "head": {"before": MARK, "after": MARK}, "keys": [dict.fromkeys(("row", "at", "from", "to", "oldPublicKey", "publicKey", "signature"))], "counts": 0, "files": [{"name": 0, "size": 0, "sha256": 0}]}
class Bad(Exception): pass
def need(holds, what):
    if not holds: raise ValueError(what)
def once(pairs): return need(len(dict(pairs)) == len(pairs), "a member twice") or dict(pairs)
def load(text): return json.loads(text, object_pairs_hook=once, parse_constant=lambda it: need(False, it))
def shaped(it, shape):
    if isinstance(shape, dict): need(list(it) == list(shape), f"members: {list(it)}"); [shaped(it[k], shape[k]) for k in shape]
    if isinstance(shape, list): [shaped(one, shape[0]) for one in it]
def instant(it): need(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", it), f"no instant: {it!r}"); datetime.datetime.fromisoformat(it[:-1])
def number(it): need(type(it) is int, f"no whole number: {it!r}")
def strict(text, alphabet=b"+/"): data = base64.b64decode(text, alphabet, validate=True); need(base64.b64encode(data, alphabet).decode() == text, "base64"); return data
def unb64(text): need("=" not in text, "base64"); return strict(text + "=" * (-len(text) % 4), b"-_")
def compact(value): return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
def sha(data): return hashlib.sha256(data).hexdigest()
def framed(fields): return b"".join(struct.pack(">Q", len(f.encode())) + f.encode() for f in fields)
def passkey(p):
    key, raw, wide = serialization.load_pem_public_key(p["pem"].encode()), unb64(p["public_key"]), lambda n: n.to_bytes((n.bit_length() + 7) // 8, "big")
    if isinstance(key, ed25519.Ed25519PublicKey): kind, parts = "EdDSA", [b"\x03\x27", b"\x21\x58\x20" + key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)]
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1): kind, parts = "ES256", [b"\x03\x26", *(label + b"\x58\x20" + n.to_bytes(32, "big") for label, n in ((b"\x21", key.public_numbers().x), (b"\x22", key.public_numbers().y)))]
    else: need(isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048, "another kind of key"); kind, e = "RS256", wide(key.public_numbers().e); parts = [b"\x03\x39\x01\x00", b"\x20\x59" + struct.pack(">H", len(wide(key.public_numbers().n))) + wide(key.public_numbers().n), b"\x21" + bytes([0x40 + len(e)]) + e]
    need(p["algorithm"] == kind and all(part in raw for part in parts), "pem, algorithm and public_key differ"); return key
def pack(files):
    out, central, at = [], [], 0
    for name, data in files:
        rest = struct.pack("<HHHHHIIIHH", 10, 0, 0, 0, 0x21, binascii.crc32(data), len(data), len(data), len(name), 0)
        central.append(b"PK\1\2\x0a\0" + rest + bytes(10) + struct.pack("<I", at) + name.encode())
        out.append(b"PK\3\4" + rest + name.encode() + data); at += len(out[-1])
    listed = b"".join(central); return b"".join(out) + listed + b"PK\5\6" + bytes(4) + struct.pack("<HHIIH", len(files), len(files), len(listed), at, 0)
def unpack(data):
    files, at = [], 0
    while data[at:at + 4] == b"PK\3\4" and len(data) >= at + 30:
        size, length = struct.unpack("<I", data[at + 22:at + 26])[0], struct.unpack("<H", data[at + 26:at + 28])[0]; name = data[at + 30:at + 30 + length].decode("ascii", "replace"); good = all(c.isalnum() or c in "-_./" for c in name) and name.isascii() and 0 < length <= 64
        if not good or any(p == "" or p.startswith(".") for p in name.split("/")) or name in dict(files): raise Bad(f"zip: the name {name!r}")
        files.append((name, data[at + 30 + length:at + 30 + length + size])); at += 30 + length + size
    if len(data) > 2 << 30 or len(files) > 60000 or pack(files) != data: raise Bad("zip: not the bytes that follow from its files")
    return files
def follow(trusted, keys, signer):
    present = trusted
    for link in keys if trusted != signer else []:
        if not link["oldPublicKey"] or strict(link["oldPublicKey"]) != present:
            if present == trusted: continue
            raise Bad(f"key: row {link['row']} does not follow")
        verified(present, b"keywheel installation key\n" + strict(link["publicKey"]), strict(link["signature"]), "key: the change of keys"); present = strict(link["publicKey"])
    if present != signer: raise Bad("key: signed by another key than the one given")
def verified(public, message, signature, what):
    try: ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError): raise Bad(what)
def table(files, manifest, name, say):
    text, rows = files[name].decode(), list(csv.reader(io.StringIO(files[name].decode(), newline="")))
    mark = lambda f: ("'" + f) if f[:1] and f[0] in "=+-@\t\r'" else f; plain = lambda f: f[1:] if f[:1] == "'" and len(f) > 1 and f[1] in "=+-@\t\r'" else f; plains = [[plain(f) for f in row] for row in rows]
    ("".join(",".join('"' + mark(f).replace('"', '""') + '"' for f in row) + "\r\n" for row in plains) != text) and say("csv", f"{name}: another spelling")
    if rows[:1] != [COLUMNS[name].split()]: raise Bad(f"csv: {name}: other columns")
    if manifest["counts"].get(name) != len(rows) - 1: say("counts", name)
    return [dict(zip(plains[0], row)) for row in plains[1:] if len(row) == len(plains[0]) or say("csv", name)]
def chain(files, manifest, say):
    rows, before = [], (manifest["head"]["before"]["seq"], manifest["head"]["before"]["hash"]); *lines, rest = files["audit.jsonl"].decode().split("\n")
    if rest: say("chain", "the last line has no line feed")
    for n, line in enumerate(lines, 1):
        r = load(line); number(r["seq"]); instant(r["at"])
        if list(r) != ["seq", "at", "actor", "action", "subject", "detail", "seals", "prevHash", "hash"] or compact(r) != line: say("chain", f"line {n}: another spelling")
        fields = [str(r["seq"])] + [r[f] for f in ("at", "actor", "action", "subject", "detail", "prevHash")]
        if (r["seq"] != before[0] + 1 or r["prevHash"] != before[1] or sha(framed(fields + ([r["seals"]] if r["seals"] else []))) != r["hash"]): say("chain", f"line {n}: row {r['seq']}")
        before, r["said"] = (r["seq"], r["hash"]), load(r["detail"]); rows.append(r)
    (before != (manifest["head"]["after"]["seq"], manifest["head"]["after"]["hash"])) and say("chain", "the end"); (manifest["counts"].get("audit.jsonl") != len(rows)) and say("counts", "audit.jsonl")
    return rows
def stories(rows, say):
    told = {}
    new = lambda: dict(rows=[], first=None, moves=[], sent=[], event={}, votes=None, early=None, fell=False, state="", end=None, ok=None, at=None, project=None, bad=False, over=None)
    for r in rows:
        voided = {seal.partition(" ")[2][6:] for seal in r["seals"].split("\n") if " votes/" in seal and seal[:2] != "- "} if r["action"] == "database.restore_accepted" else set(told) if r["action"] == "installation.key_replaced" else set()
        for s in (s for id, s in told.items() if id in voided and s["state"] == "approved" and not s["at"]): s["state"], s["ok"] = "awaiting_approval", None
        for digest, _, subject in (seal.partition(" ") for seal in r["seals"].split("\n") if seal):
            if subject.startswith("votes/") and digest != "-": told.setdefault(subject[6:], new())["votes"] = digest
        if not r["subject"].startswith("rotation/"): continue
        s, said = told.setdefault(r["subject"][9:], new()), r["said"]
        s["rows"], s["project"] = s["rows"] + [r["seq"]], s["project"] or said.get("groupId")
        if r["action"] == "rotation.proposed":
            s["bad"] |= len(s["rows"]) > 1; s["first"], s["state"], s["ok"] = r, "awaiting_approval", None
        elif r["action"] == "rotation.moved":
            s["bad"] |= s["state"] not in ("", said["from"])
            if said["to"] not in FINAL: s["end"] = s["over"] = None
            elif said["from"] not in FINAL: s["end"], s["over"] = r["at"], r["seq"]
            if said["to"] == "awaiting_approval": s["ok"] = None
            elif (said["from"], said["to"]) == ("awaiting_approval", "approved"): s["ok"] = r["at"]
            s["fell"] |= s["at"] is not None and said["to"] in ("awaiting_approval", "approved"); s["state"] = said["to"]; s["moves"].append((said["from"], said["to"], r["at"]))
        elif r["action"] == "rotation.patch_intent":
            if said["target"] == "new": s["bad"] |= s["state"] in FINAL or s["state"] == "awaiting_approval" or r["at"] < (s["first"] or r)["said"].get("plannedFor", "")
            if said["target"] == "new": s["early"], s["fell"], s["at"], s["row"] = s["votes"], False, s["at"] or r["at"], s["row"] if s["at"] else r["seq"]
            s["sent"].append((said["target"] == "new", said["key"]))
        elif r["action"] == "rotation.atlas_event": s["event"] = said
    return told
def signature(vote, id, hash, passkeys):
    e = load(vote["evidence"]); client, data = load(unb64(e["clientData"])), unb64(e["authenticatorData"]); asked = hashlib.sha256(b"keywheel passkey\n" + framed(["approve", id, hash, e["nonce"]])).digest()
    if (e["nonce"] != vote["nonce"] or e["proposalHash"] != hash or client["type"] != "webauthn.get" or unb64(client["challenge"]) != asked
            or client["origin"] != e["origin"] or client.get("crossOrigin") or client.get("topOrigin") is not None
            or data[:32] != hashlib.sha256(e["site"].encode()).digest() or data[32] & 5 != 5 or data[32] & 24 == 16): raise ValueError
    key, message = passkeys[e["passkey"], e["publicKey"]], data + hashlib.sha256(unb64(e["clientData"])).digest()
    key.verify(unb64(e["signature"]), message, *([ec.ECDSA(hashes.SHA256())] if isinstance(key, ec.EllipticCurvePublicKey) else [padding.PKCS1v15(), hashes.SHA256()] if isinstance(key, rsa.RSAPublicKey) else []))
def rotation(n, it, story, d, policies, passkeys, sealed, nonces, say):
    id, first, wrong = it["rotation_id"], story["first"], lambda rule, what: say(rule, f"rotation {it['rotation_id']}: {what}")
    if not first: return wrong("population", "no row proposes it")
    said = first["said"]
    for column, value in [("requested_by", first["actor"]), ("proposed_at", first["at"]), ("old_key", said["oldKey"]), ("new_key", said["newKey"]), ("reason", said["reason"] or ""), ("proposal_hash", said["proposalHash"]), ("planned_for", said.get("plannedFor", "")), ("approvals_required", str(said["approvals"])), ("state", story["state"]), ("finished_at", story["end"] or ""), ("approved_at", story["ok"] or ""), ("first_sent_at", story["at"] or ""), ("first_row", str(story["rows"][0])), ("last_row", str(story["rows"][-1]))]:
        if it[column] != value: wrong("rotation", column)
    (it["planned_for"]) and instant(it["planned_for"]); sent = story["at"] is not None
    sealed = sealed and (story["row"] if sent else story["over"] or sealed) >= sealed
    if (story["bad"] or d["auditRows"] != story["rows"] or any(key != it["new_key" if new else "old_key"] for new, key in story["sent"]) or (not sent and (it["patched_at"] or it["state"] in ("completed", "accepted", "rolled_back")))): wrong("rotation", "its rows")
    mark = it["planned_for"] or ("emergency" if it["trigger"] == "emergency" else ""); bound = [it[c] for c in ("project_id", "provider", "old_key", "new_key", "policy_version")] + ([mark] if mark else []); (sha(framed(bound)) != it["proposal_hash"]) and wrong("proposal", "another hash")
    ([m[:2] for m in story["moves"] if m[0] != m[1]] != [(j["from"], j["to"]) for j in d["journal"] if j["from"] not in (None, j["to"])]) and wrong("journal", "states"); ([it["atlas_event_" + c] for c in ("id", "at", "by")] != [story["event"].get(c, "") for c in ("atlasEventId", "at", "by")]) and wrong("atlas-event", "another one"); (policies.get(it["policy_version"]) != d["policy"]) and wrong("policy", "missing")
    data = b"keywheel row\n"
    for field in ["votes/" + id] + [v[f] for v in d["votes"] for f in ("voter", "at", "method", "comment", "nonce", "evidence") if f not in ("nonce", "evidence") or v["nonce"] is not None]:
        data += b"\0" if field == None else b"\1" + framed([field])
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("="); count, policy = len(d["votes"]), load(d["policy"])
    if it["approvals_given"] != str(count) or (story["votes"] != digest if story["votes"] else sealed and count) or (sent and sealed and not story["fell"] and story["early"] != digest): wrong("votes", "not as sealed")
    number(policy["approvals"]); (str(policy["approvals"]) != it["approvals_required"]) and wrong("votes", "another quorum than the policy's"); (sent and not story["fell"] and count < int(it["approvals_required"])) and wrong("votes", "too few"); (len({v["voter"] for v in d["votes"]}) != count) and wrong("votes", "a voter twice"); holders = {}
    for v in d["votes"]:
        if "auto_approve" == v["method"] or v["voter"] == "policy:auto_approve": ((v["method"], v["voter"]) != ("auto_approve", "policy:auto_approve") or it["trigger"] not in policy["autoApprove"]) and wrong("votes", "the policy approves no such trigger")
        else: (v["voter"] == it["requested_by"] and policy.get("selfApproval") is not True) and wrong("votes", "the proposer's own"); (STRENGTH.get(v["method"], 0) < STRENGTH.get(policy.get("approvalMethod", "session"), 0)) and wrong("votes", f"{v['voter']}: a weaker method than the policy's")
        if v["evidence"]: e = load(v["evidence"]); (e["nonce"] in nonces) and wrong("votes", "a nonce twice"); (holders.setdefault(e["passkey"], v["voter"]) != v["voter"]) and wrong("votes", "a passkey of two voters"); nonces.add(e["nonce"])
        if v["evidence"] == v["nonce"] == None and v["method"] != "passkey": continue
        try: signature(v, id, it["proposal_hash"], passkeys)
        except (InvalidSignature, ValueError, KeyError, TypeError, IndexError): wrong("passkey", f"the signature of {v['voter']}")
def check(path, trusted, say):
    with open(path, "rb") as f: listed = unpack(f.read())
    if [n for n, _ in listed[-2:]] != ["manifest.json", "manifest.dsse.json"]: raise Bad("manifest: missing")
    files, raw = dict(listed), dict(listed)["manifest.json"]; m, envelope = load(raw), load(files["manifest.dsse.json"])
    shaped(m, MANIFEST); before, public = m["head"]["before"], strict(m["installation"]["publicKey"])
    for at in (m["madeAt"], *m["period"].values(), *(k["at"] for k in m["keys"])): instant(at)
    for n in (m["versions"]["schema"], m["head"]["before"]["seq"], m["head"]["after"]["seq"], *m["counts"].values(), *(k["row"] for k in m["keys"]), *(f["size"] for f in m["files"])): number(n)
    if (before["seq"] == 0) != (before["hash"] == "") or not 0 <= before["seq"] < 2**63 - 1 or list(m["counts"]) != sorted(m["counts"]): say("chain", "the row before the first")
    if m["format"] != "keywheel-evidence/1" or compact(m).encode() != raw or m["installation"]["keyId"] != sha(SPKI + public) or m["installation"]["fingerprint"] != sha(public)[:32]: raise Bad("manifest: another form")
    canonical = {"payloadType": KIND, "payload": base64.b64encode(raw).decode(), "signatures": [{"keyid": sha(SPKI + public), "sig": envelope["signatures"][0]["sig"]}]}
    if compact(canonical).encode() != files["manifest.dsse.json"]: raise Bad("signature: another form")
    verified(public, f"DSSEv1 {len(KIND)} {KIND} {len(raw)} ".encode() + raw, strict(envelope["signatures"][0]["sig"]), "signature: it does not fit")
    if trusted: follow(trusted, m["keys"], public)
    if [{"name": n, "size": len(b), "sha256": sha(b)} for n, b in listed[:-2]] != m["files"]: say("files", "not those in the manifest")
    if [n for n, _ in listed[:10]] != FIXED: raise Bad("files: not the fixed ones")
    rows, tables = chain(files, m, say), {n: table(files, m, n, say) for n in FIXED[2:]}
    told, sealed, listed_ids = stories(rows, say), next((r["seq"] for r in rows if r["seals"]), 0), [r["rotation_id"] for r in tables["rotations.csv"]]
    if [n for n, _ in listed[10:-2]] != [f"dossiers/{id}.{kind}" for id in listed_ids for kind in ("json", "html")]: raise Bad("population: not the dossiers of its rotations")
    if listed_ids != sorted(set(listed_ids)): say("population", "order")
    for id, s in told.items():
        if s["first"]: is_open = s["first"]["at"] < m["period"]["to"] and (not s["end"] or s["end"] >= m["period"]["from"])
        else: is_open = any(at >= m["period"]["from"] and a not in FINAL for a, _, at in s["moves"])
        if m["project"] is not None and (s["project"] != m["project"] if s["project"] else id not in listed_ids): is_open = False
        if s["rows"] and is_open != (id in listed_ids) and (is_open or s["first"]): say("population", f"rotation {id}")
    policies = {p["version"]: p["content"] for p in tables["policies.csv"] if p["kind"] == "rules"}; (any(sha(c.encode())[:16] != v for v, c in policies.items())) and say("policy", "a version")
    changed = [dict(kind="change", version="", at=r["at"], who=r["actor"], action=r["action"], subject=r["subject"], row=str(r["seq"]), content=r["detail"]) for r in rows if r["action"] in ("project.added", "project.edited", "project.removed") or r["action"].startswith(("loosening.", "config."))]; (changed != [p for p in tables["policies.csv"] if p["kind"] != "rules"]) and say("policy", "the changes")
    passkeys, votes, nonces = {}, [], set()
    for p in tables["passkeys.csv"]:
        try: passkeys[p["passkey"], p["public_key"]] = passkey(p)
        except (ValueError, TypeError, IndexError, OverflowError, UnsupportedAlgorithm) as error: say("passkey", f"passkeys.csv: {p['passkey']}: {error}")
    for n, it in enumerate(tables["rotations.csv"]):
        id, d = it["rotation_id"], load(files[f"dossiers/{it['rotation_id']}.json"])
        (d["format"] != "keywheel-dossier/1" or d["rotation"] != it) and say("dossier", id); (m["project"] is not None and it["project_id"] != m["project"]) and say("population", f"{id} is of another project"); (d["mails"] != [mail for mail in tables["mails.csv"] if mail["rotation_id"] == id]) and say("mails", id)
        rotation(n, it, told.get(id, {"first": None}), d, policies, passkeys, sealed, nonces, say)
        for v in d["votes"]:
            e = load(v["evidence"]) if v["evidence"] else {"passkey": ""}
            votes.append(dict(rotation_id=id, voter=v["voter"], at=v["at"], method=v["method"], comment=v["comment"] or "", passkey=e["passkey"], nonce=v["nonce"] or "", proposal_hash=it["proposal_hash"]))
    if votes != tables["approvals.csv"]: say("votes", "approvals.csv")
    return m, rows, listed_ids, {m["head"]["before"]["seq"]: m["head"]["before"]["hash"], **{r["seq"]: r["hash"] for r in rows}}
def main():
    args = argparse.ArgumentParser()
    for name in ("bundle", "--key", "--expect", "--previous"): args.add_argument(name)
    args, faults = args.parse_args(), []; say = lambda rule, what: faults.append(f"{rule}: {what}")
    try:
        trusted = serialization.load_pem_public_key(open(args.key, "rb").read()).public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw) if args.key else None
        m, rows, listed, hashes_ = check(args.bundle, trusted, say); (args.expect and hashes_.get(int(args.expect.split(":")[0])) != args.expect.split(":")[1]) and say("expect", args.expect)
        if args.previous:
            earlier, known, _, _ = check(args.previous, trusted, lambda rule, what: say("previous", f"{rule}: {what}")); end = earlier["head"]["after"]; (hashes_.get(end["seq"]) != end["hash"]) and say("previous", "its end is not in this bundle")
            for id, s in stories(known + [r for r in rows if r["seq"] > end["seq"]], say).items():
                is_open = s["first"]["at"] < m["period"]["to"] and (not s["end"] or s["end"] >= m["period"]["from"]) if s["first"] else s["end"] >= m["period"]["from"] if s["end"] else s["state"] not in FINAL | {""}
                if is_open and s["rows"] and m["project"] in (None, s["project"]) and id not in listed: say("previous", f"rotation {id} was open, and is missing")
    except Bad as bad: faults.append(str(bad))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, csv.Error, binascii.Error, OverflowError, RecursionError, UnsupportedAlgorithm) as error: faults.append(f"form: {error!r}")
    print("\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in fault) for fault in faults) or "verified" + ("" if args.key else "; give --key: who signed is only claimed"))
    sys.exit(1 if faults else 0)
if __name__ == "__main__": main()

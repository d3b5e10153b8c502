#!/usr/bin/env python3
"""Verifies an evidence bundle of Keywheel. Written from docs/evidence.md alone; needs Python 3.9 and `cryptography`.
Prints a line for each fault, as RULE: WHAT, and ends with 1 when there is one. Time stamps of authorities are left out."""
import argparse, base64, binascii, csv, hashlib, io, json, struct, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

COLUMNS = {
    "rotations.csv": "rotation_id project_id project_name provider old_key new_key trigger reason requested_by proposed_at planned_for policy_version proposal_hash approvals_required approvals_given approved_at first_sent_at patched_at finished_at state cause atlas_event atlas_event_id atlas_event_at atlas_event_by first_row last_row", "approvals.csv": "rotation_id voter at method comment passkey nonce proposal_hash",
    "passkeys.csv": "passkey algorithm public_key pem holder enrolled_at confirmed_by counts_from", "keys.csv": "project_id project_name key since source until interval due days days_late exception",
    "inventory.csv": "project_id project_name environment owners provider place key key_since valid due policy_version credential lookup tracked_since observed_at", "policies.csv": "kind version at who action subject row content",
    "mails.csv": "message_id kind project_id rotation_id recipient created_at state attempts sent_at answer", "findings.csv": "kind project_id rotation_id at row count detail"}
FIXED = ["README.txt", "audit.jsonl", *COLUMNS]
KIND = "application/vnd.keywheel.evidence-manifest+json"
FINAL = {"completed", "rolled_back", "failed", "rejected", "cancelled", "expired", "superseded", "accepted", "closed"}
SPKI = bytes.fromhex("302a300506032b6570032100")
class Bad(Exception): pass
def compact(value): return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
def sha(data): return hashlib.sha256(data).hexdigest()
def framed(fields): return b"".join(struct.pack(">Q", len(f.encode())) + f.encode() for f in fields)
def unb64(text): return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
def pack(files):
    out, central, at = [], [], 0
    for name, data in files:
        rest = struct.pack("<HHHHHIIIHH", 10, 0, 0, 0, 0x21, binascii.crc32(data), len(data), len(data), len(name), 0)
        central.append(b"PK\1\2\x0a\0" + rest + bytes(10) + struct.pack("<I", at) + name.encode())
        out.append(b"PK\3\4" + rest + name.encode() + data)
        at += len(out[-1])
    listed = b"".join(central)
    return b"".join(out) + listed + b"PK\5\6" + bytes(4) + struct.pack("<HHIIH", len(files), len(files), len(listed), at, 0)
def unpack(data):
    files, at = [], 0
    while data[at:at + 4] == b"PK\3\4" and len(data) >= at + 30:
        size, length = struct.unpack("<I", data[at + 22:at + 26])[0], struct.unpack("<H", data[at + 26:at + 28])[0]
        name = data[at + 30:at + 30 + length].decode("ascii", "replace")
        good = all(c.isalnum() or c in "-_./" for c in name) and name.isascii() and 0 < length <= 64
        if not good or any(p == "" or p.startswith(".") for p in name.split("/")) or name in dict(files):
            raise Bad(f"zip: the name {name!r}")
        files.append((name, data[at + 30 + length:at + 30 + length + size]))
        at += 30 + length + size
    if len(data) > 2 << 30 or len(files) > 60000 or pack(files) != data: raise Bad("zip: not the bytes that follow from its files")
    return files
def follow(trusted, keys, signer):
    present = trusted
    for link in keys if trusted != signer else []:
        if not link["oldPublicKey"] or base64.b64decode(link["oldPublicKey"]) != present:
            if present == trusted: continue
            raise Bad(f"key: row {link['row']} does not follow")
        nxt = base64.b64decode(link["publicKey"])
        verified(present, b"keywheel installation key\n" + nxt, base64.b64decode(link["signature"]), "key: the change of keys")
        present = nxt
    if present != signer: raise Bad("key: signed by another key than the one given")
def verified(public, message, signature, what):
    try: ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError): raise Bad(what)
def table(files, manifest, name, say):
    text, rows = files[name].decode(), list(csv.reader(io.StringIO(files[name].decode(), newline="")))
    mark = lambda f: ("'" + f) if f[:1] and f[0] in "=+-@\t\r'" else f
    plain = lambda f: f[1:] if f[:1] == "'" and len(f) > 1 and f[1] in "=+-@\t\r'" else f
    plains = [[plain(f) for f in row] for row in rows]
    if "".join(",".join('"' + mark(f).replace('"', '""') + '"' for f in row) + "\r\n" for row in plains) != text:
        say("csv", f"{name}: another spelling")
    if rows[:1] != [COLUMNS[name].split()]: raise Bad(f"csv: {name}: other columns")
    if manifest["counts"].get(name) != len(rows) - 1: say("counts", name)
    return [dict(zip(plains[0], row)) for row in plains[1:] if len(row) == len(plains[0]) or say("csv", name)]
def chain(files, manifest, say):
    rows, before = [], (manifest["head"]["before"]["seq"], manifest["head"]["before"]["hash"])
    for n, line in enumerate(files["audit.jsonl"].decode().split("\n")[:-1], 1):
        r = json.loads(line)
        if list(r) != ["seq", "at", "actor", "action", "subject", "detail", "seals", "prevHash", "hash"] or compact(r) != line: say("chain", f"line {n}: another spelling")
        fields = [str(r["seq"])] + [r[f] for f in ("at", "actor", "action", "subject", "detail", "prevHash")]
        if (r["seq"] != before[0] + 1 or r["prevHash"] != before[1] or sha(framed(fields + ([r["seals"]] if r["seals"] else []))) != r["hash"]): say("chain", f"line {n}: row {r['seq']}")
        before, r["said"] = (r["seq"], r["hash"]), json.loads(r["detail"])
        rows.append(r)
    if before != (manifest["head"]["after"]["seq"], manifest["head"]["after"]["hash"]): say("chain", "the end")
    if manifest["counts"].get("audit.jsonl") != len(rows): say("counts", "audit.jsonl")
    return rows
def stories(rows, say):
    told = {}
    new = lambda: dict(rows=[], first=None, moves=[], sent=[], event={}, votes=None, early=None, state="", end=None, ok=None, at=None, project=None, bad=False)
    for r in rows:
        if r["action"] in ("database.restore_accepted", "installation.key_replaced"):
            for s in told.values():
                if s["state"] == "approved" and not s["at"]: s["state"], s["ok"] = "awaiting_approval", None
        for digest, _, subject in (seal.partition(" ") for seal in r["seals"].split("\n") if seal):
            if subject.startswith("votes/") and digest != "-": told.setdefault(subject[6:], new())["votes"] = digest
        if not r["subject"].startswith("rotation/"): continue
        s, said = told.setdefault(r["subject"][9:], new()), r["said"]
        s["rows"], s["project"] = s["rows"] + [r["seq"]], s["project"] or said.get("groupId")
        if r["action"] == "rotation.proposed":
            s["bad"] |= len(s["rows"]) > 1
            s["first"], s["state"], s["ok"] = r, "awaiting_approval", None
        elif r["action"] == "rotation.moved":
            s["bad"] |= s["state"] not in ("", said["from"])
            if said["to"] not in FINAL: s["end"] = None
            elif said["from"] not in FINAL: s["end"] = r["at"]
            if said["to"] == "awaiting_approval": s["ok"] = None
            elif (said["from"], said["to"]) == ("awaiting_approval", "approved"): s["ok"] = r["at"]
            s["state"] = said["to"]
            s["moves"].append((said["from"], said["to"], r["at"]))
        elif r["action"] == "rotation.patch_intent":
            if said["target"] == "new" and not s["at"]: s["early"], s["at"] = s["votes"], r["at"]
            s["sent"].append((said["target"] == "new", said["key"]))
        elif r["action"] == "rotation.atlas_event": s["event"] = said
    return told
def signature(vote, id, hash, passkeys):
    e = json.loads(vote["evidence"])
    client, data = json.loads(unb64(e["clientData"])), unb64(e["authenticatorData"])
    asked = hashlib.sha256(b"keywheel passkey\n" + framed(["approve", id, hash, e["nonce"]])).digest()
    if (e["nonce"] != vote["nonce"] or e["proposalHash"] != hash or client["type"] != "webauthn.get" or unb64(client["challenge"]) != asked
            or client["origin"] != e["origin"] or client.get("crossOrigin") or client.get("topOrigin") is not None
            or data[:32] != hashlib.sha256(e["site"].encode()).digest() or data[32] & 5 != 5 or data[32] & 24 == 16): raise ValueError
    pem = passkeys[e["passkey"], e["publicKey"]]
    key, message = serialization.load_pem_public_key(pem.encode()), data + hashlib.sha256(unb64(e["clientData"])).digest()
    if isinstance(key, ec.EllipticCurvePublicKey): key.verify(unb64(e["signature"]), message, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPublicKey): key.verify(unb64(e["signature"]), message, padding.PKCS1v15(), hashes.SHA256())
    else: key.verify(unb64(e["signature"]), message)
def rotation(n, it, story, d, policies, passkeys, sealed, say):
    id, first, wrong = it["rotation_id"], story["first"], lambda rule, what: say(rule, f"rotation {it['rotation_id']}: {what}")
    if not first: return wrong("population", "no row proposes it")
    said = first["said"]
    for column, value in [("requested_by", first["actor"]), ("proposed_at", first["at"]), ("old_key", said["oldKey"]), ("new_key", said["newKey"]),
                          ("reason", said["reason"] or ""), ("proposal_hash", said["proposalHash"]), ("planned_for", said.get("plannedFor", "")), ("approvals_required", str(said["approvals"])), ("state", story["state"]), ("finished_at", story["end"] or ""), ("approved_at", story["ok"] or ""), ("first_sent_at", story["at"] or ""),
                          ("first_row", str(story["rows"][0])), ("last_row", str(story["rows"][-1]))]:
        if it[column] != value: wrong("rotation", column)
    sent = story["at"] is not None
    if (story["bad"] or d["auditRows"] != story["rows"] or any(key != it["new_key" if new else "old_key"] for new, key in story["sent"]) or (not sent and (it["patched_at"] or it["state"] in ("completed", "accepted", "rolled_back")))): wrong("rotation", "its rows")
    mark = it["planned_for"] or ("emergency" if it["trigger"] == "emergency" else "")
    bound = [it[c] for c in ("project_id", "provider", "old_key", "new_key", "policy_version")] + ([mark] if mark else [])
    if sha(framed(bound)) != it["proposal_hash"]: wrong("proposal", "another hash")
    if [m[:2] for m in story["moves"] if m[0] != m[1]] != [(j["from"], j["to"]) for j in d["journal"] if j["from"] not in (None, j["to"])]: wrong("journal", "states")
    if [it["atlas_event_" + c] for c in ("id", "at", "by")] != [story["event"].get(c, "") for c in ("atlasEventId", "at", "by")]: wrong("atlas-event", "another one")
    if policies.get(it["policy_version"]) != d["policy"]: wrong("policy", "missing")
    data = b"keywheel row\n"
    for field in ["votes/" + id] + [v[f] for v in d["votes"] for f in ("voter", "at", "method", "comment", "nonce", "evidence") if f not in ("nonce", "evidence") or v["nonce"] is not None]:
        data += b"\0" if field == None else b"\1" + framed([field])
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    count, policy = len(d["votes"]), json.loads(d["policy"])
    if it["approvals_given"] != str(count) or (story["votes"] != digest if story["votes"] else sealed and count) or (sent and sealed and story["early"] != digest): wrong("votes", "not as sealed")
    if sent and count < int(it["approvals_required"]) and not any(v["method"] == "auto_approve" for v in d["votes"]): wrong("votes", "too few")
    for v in d["votes"]:
        if v["voter"] == it["requested_by"] and policy.get("selfApproval") is not True and v["method"] != "auto_approve": wrong("votes", "the proposer's own")
        if v["evidence"] == v["nonce"] == None and v["method"] != "passkey": continue
        try: signature(v, id, it["proposal_hash"], passkeys)
        except (InvalidSignature, ValueError, KeyError, TypeError, IndexError): wrong("passkey", f"the signature of {v['voter']}")
def check(path, trusted, say):
    with open(path, "rb") as f: listed = unpack(f.read())
    if [n for n, _ in listed[-2:]] != ["manifest.json", "manifest.dsse.json"]: raise Bad("manifest: missing")
    files, raw = dict(listed), dict(listed)["manifest.json"]
    m, envelope = json.loads(raw), json.loads(files["manifest.dsse.json"])
    public = base64.b64decode(m["installation"]["publicKey"])
    if m["format"] != "keywheel-evidence/1" or compact(m).encode() != raw or m["installation"]["keyId"] != sha(SPKI + public) or m["installation"]["fingerprint"] != sha(public)[:32]: raise Bad("manifest: another form")
    canonical = {"payloadType": KIND, "payload": base64.b64encode(raw).decode(), "signatures": [{"keyid": sha(SPKI + public), "sig": envelope["signatures"][0]["sig"]}]}
    if compact(canonical).encode() != files["manifest.dsse.json"]: raise Bad("signature: another form")
    verified(public, f"DSSEv1 {len(KIND)} {KIND} {len(raw)} ".encode() + raw, base64.b64decode(envelope["signatures"][0]["sig"]), "signature: it does not fit")
    if trusted: follow(trusted, m["keys"], public)
    if [{"name": n, "size": len(b), "sha256": sha(b)} for n, b in listed[:-2]] != m["files"]: say("files", "not those in the manifest")
    if [n for n, _ in listed[:10]] != FIXED: raise Bad("files: not the fixed ones")
    rows, tables = chain(files, m, say), {n: table(files, m, n, say) for n in FIXED[2:]}
    told, sealed, listed_ids = stories(rows, say), any(r["seals"] for r in rows), [r["rotation_id"] for r in tables["rotations.csv"]]
    if [n for n, _ in listed[10:-2]] != [f"dossiers/{id}.{kind}" for id in listed_ids for kind in ("json", "html")]: raise Bad("population: not the dossiers of its rotations")
    if listed_ids != sorted(set(listed_ids)): say("population", "order")
    for id, s in told.items():
        if s["first"]: is_open = s["first"]["at"] < m["period"]["to"] and (not s["end"] or s["end"] >= m["period"]["from"])
        else: is_open = any(at >= m["period"]["from"] and a not in FINAL for a, _, at in s["moves"])
        if m["project"] is not None and (s["project"] != m["project"] if s["project"] else id not in listed_ids): is_open = False
        if s["rows"] and is_open != (id in listed_ids) and (is_open or s["first"]): say("population", f"rotation {id}")
    policies = {p["version"]: p["content"] for p in tables["policies.csv"] if p["kind"] == "rules"}
    if any(sha(c.encode())[:16] != v for v, c in policies.items()): say("policy", "a version")
    changed = [dict(kind="change", version="", at=r["at"], who=r["actor"], action=r["action"], subject=r["subject"], row=str(r["seq"]), content=r["detail"]) for r in rows if r["action"] in ("project.added", "project.edited", "project.removed") or r["action"].startswith(("loosening.", "config."))]
    if changed != [p for p in tables["policies.csv"] if p["kind"] != "rules"]: say("policy", "the changes")
    passkeys, votes = {(p["passkey"], p["public_key"]): p["pem"] for p in tables["passkeys.csv"]}, []
    for n, it in enumerate(tables["rotations.csv"]):
        id, d = it["rotation_id"], json.loads(files[f"dossiers/{it['rotation_id']}.json"])
        if d["format"] != "keywheel-dossier/1" or d["rotation"] != it: say("dossier", id)
        if m["project"] is not None and it["project_id"] != m["project"]: say("population", f"{id} is of another project")
        if d["mails"] != [mail for mail in tables["mails.csv"] if mail["rotation_id"] == id]: say("mails", id)
        rotation(n, it, told.get(id, {"first": None}), d, policies, passkeys, sealed, say)
        for v in d["votes"]:
            e = json.loads(v["evidence"]) if v["evidence"] else {"passkey": ""}
            votes.append(dict(rotation_id=id, voter=v["voter"], at=v["at"], method=v["method"], comment=v["comment"] or "", passkey=e["passkey"], nonce=v["nonce"] or "", proposal_hash=it["proposal_hash"]))
    if votes != tables["approvals.csv"]: say("votes", "approvals.csv")
    return m, {m["head"]["before"]["seq"]: m["head"]["before"]["hash"], **{r["seq"]: r["hash"] for r in rows}}
def main():
    args = argparse.ArgumentParser()
    for name in ("bundle", "--key", "--expect", "--previous"): args.add_argument(name)
    args, faults = args.parse_args(), []; say = lambda rule, what: faults.append(f"{rule}: {what}")
    try:
        trusted = serialization.load_pem_public_key(open(args.key, "rb").read()).public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw) if args.key else None
        manifest, hashes_ = check(args.bundle, trusted, say)
        if args.expect and hashes_.get(int(args.expect.split(":")[0])) != args.expect.split(":")[1]: say("expect", args.expect)
        if args.previous:
            before = check(args.previous, trusted, say)[0]["head"]["after"]
            if hashes_.get(before["seq"]) != before["hash"]: say("previous", "its end is not in this bundle")
    except Bad as bad: faults.append(str(bad))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, csv.Error, binascii.Error) as error: faults.append(f"form: {error!r}")
    print("\n".join(faults) or "verified" + ("" if args.key else "; give --key: who signed is only claimed"))
    sys.exit(1 if faults else 0)
if __name__ == "__main__": main()

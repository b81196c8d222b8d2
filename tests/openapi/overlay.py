"""What is known to be wrong in a published document: SERVICE.toml beside this file, each entry with its reason.

An entry mends the document where it can, so that the answers are still held against something; an excuse lets one check of one
operation go, and is the last resort.
"""
import re
import tomllib
from pathlib import Path

METHODS = ("get", "head", "post", "put", "patch", "delete")


class Overlay:
    def __init__(self, service, said):
        self.service, self.said = service, said
        for kind, entries in said.items():
            if isinstance(entries, list):
                for entry in entries:
                    if not entry.get("because"):
                        raise SystemExit(f"An entry of {kind} in {service}.toml has no reason; write one: {entry}")

    def excuse(self, operation, checks, status):
        for entry in self.said.get("excuses", []):
            if operation in expanded(entry["operations"]) and set(checks) & set(entry["checks"]):
                if status in entry.get("statuses", [status]):
                    return f"{operation}: {', '.join(entry['checks'])}"
        return None

    def unreached(self):
        return {name for entry in self.said.get("unreached", []) for name in expanded(entry["operations"])}

    def absent(self):
        return [name for entry in self.said.get("absent", []) for name in expanded(entry["operations"])]

    def amend(self, document, samples):
        operations = {f"{method.upper()} {path}": operation for path, item in document["paths"].items()
                      for method, operation in item.items() if method in METHODS}
        document.pop("security", None)
        for name, operation in operations.items():
            operation.pop("security", None)
            from_text(operation)
            self.refuse(name, operation, document)
        for entry in self.said.get("operations", []):
            for name in expanded(entry["names"]):
                change(name, operations[name], entry)
        for entry in self.said.get("properties", []):
            if not mend_properties(document, entry, None):
                raise SystemExit(f"No property of the document is like this any more; take the entry out: {entry['because']}")
        for entry in self.said.get("schemas", []):
            patch(document, entry)
        for name, operation in operations.items():
            add_samples(name, operation, self.service, samples)
        return document

    def refuse(self, name, operation, document):
        """The answers by which any operation may refuse."""
        method, path = name.split(" ")
        has_input = "{" in path or "parameters" in operation or "requestBody" in operation
        fits = {"always": True, "input": has_input, "body": "requestBody" in operation, "change": method not in ("GET", "HEAD"),
                "unauthenticated": False}
        for entry in self.said.get("refusals", []):
            if fits[entry["where"]]:
                for status in entry["statuses"]:
                    operation["responses"].setdefault(status, {"description": entry["because"]})
        schema = self.said.get("error")
        if schema and method != "HEAD":
            for status, response in operation["responses"].items():
                if status.startswith("4"):
                    response.setdefault("content", {"application/json": {"schema": schema["schema"]}})


def expanded(names):
    """`GET|HEAD /path` stands for two."""
    for name in names:
        methods, path = name.split(" ")
        yield from (f"{method} {path}" for method in methods.split("|"))


def from_text(operation):
    """Takes the codes that the operation's own description lists, where the structured part has the generator's default."""
    text = operation.get("description", "")
    normal = re.search(r"Normal response codes?: ([0-9, ]+)", text)
    refused = re.search(r"Error response codes?: ([0-9, ]+)", text)
    responses = operation["responses"]
    if normal:
        codes = re.findall(r"\d{3}", normal[1])
        successes = [code for code in responses if code.startswith("2")]
        if len(codes) == 1 and len(successes) == 1:
            move(responses, successes[0], codes[0])
    if refused:
        for code in re.findall(r"\d{3}", refused[1]):
            responses.setdefault(code, {"description": "Refused"})


def move(responses, old, new):
    response = responses.pop(old)
    if new == "204":
        response.pop("content", None)
    responses[new] = response


def change(name, operation, entry):
    for old, new in entry.get("status", {}).items():
        if old not in operation["responses"]:
            raise SystemExit(f"{name} of the document has no {old}; take the entry out: {entry['because']}")
        move(operation["responses"], old, new)
    if "media" in entry:
        content = operation["requestBody"]["content"]
        operation["requestBody"]["content"] = {entry["media"]: next(iter(content.values()))}
    for status in entry.get("also", []):
        operation["responses"].setdefault(status, {"description": entry["because"]})
    for status, content in entry.get("content", {}).items():
        operation["responses"][status]["content"] = content
    for status in entry.get("no_content", []):
        operation["responses"][status].pop("content", None)


def mend_properties(here, entry, name):
    """Changes what the generator says of a property wherever it says it; gives how often."""
    if isinstance(here, list):
        return sum(mend_properties(each, entry, name) for each in here)
    if not isinstance(here, dict):
        return 0
    times = 0
    names = entry.get("names", [name])
    if name in names and all(here.get(k) == v for k, v in entry["was"].items()):
        for key in entry["was"]:
            del here[key]
        here.pop("items", None)
        here.update(entry["set"])
        times += 1
    properties = here.get("properties")
    for key, each in here.items():
        if each is properties and isinstance(each, dict) and name != "properties":
            times += sum(mend_properties(schema, entry, property) for property, schema in each.items())
        else:
            times += mend_properties(each, entry, None)
    return times


def patch(document, entry):
    for at in entry["at"] if isinstance(entry["at"], list) else [entry["at"]]:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in at.strip("/").split("/")]
        here = document
        for part in parts[:-1]:
            here = here[int(part) if isinstance(here, list) else part]
        last = int(parts[-1]) if isinstance(here, list) else parts[-1]
        if "merge" in entry:
            here[last].update(entry["merge"])
        elif "remove" in entry:
            for key in entry["remove"]:
                del here[last][key]
        else:
            here[last] = entry["set"]


def add_samples(name, operation, service, samples):
    """Bodies that are known to be good."""
    body = operation.get("requestBody")
    if body is None:
        return
    method, path = name.split(" ")
    known = samples.get(fold(f"{method} /{service}{path}"), [])
    values = []
    for sample in known:
        if isinstance(sample, dict):
            sample = {k: v for k, v in sample.items() if k not in ("$with", "$version")}
        if sample:
            values.append(sample)
    for media in body.get("content", {}).values():
        if values:
            media["examples"] = {f"sample {i}": {"value": value} for i, value in enumerate(values)}


def fold(name):
    return re.sub(r"{[^}]*}", "{}", name)


def load(service):
    with open(Path(__file__).parent / f"{service}.toml", "rb") as file:
        return Overlay(service, tomllib.load(file))

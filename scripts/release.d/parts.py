"""Writes what the program is made of, as a CycloneDX 1.5 document, to standard output: parts.py TARGET

The crates that Cargo.lock names and that are linked for this target, each with version, licence, checksum and what it needs.
The same lock gives the same bytes: there is neither a time nor a random number in it.
"""

import json
import subprocess
import sys
import tomllib


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    # What is linked is there already; who has built nothing yet has it fetched.
    told = subprocess.run(command + ["--offline"], capture_output=True)
    if told.returncode != 0:
        told = subprocess.run(command, capture_output=True)
    if told.returncode != 0:
        sys.exit(told.stderr.decode())
    return json.loads(told.stdout)


def linked(meta):
    """What is reached from nearside by normal dependencies: neither for its tests nor for building alone."""
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    macros = {package["id"] for package in meta["packages"] if package["targets"][0]["kind"] == ["proc-macro"]}
    is_linked = lambda need: need["pkg"] not in macros and any(kind["kind"] is None for kind in need["dep_kinds"])
    needs, waiting = {}, [meta["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package not in needs:
            needs[package] = sorted(need["pkg"] for need in nodes[package]["deps"] if is_linked(need))
            waiting.extend(needs[package])
    return needs


def main(target):
    meta = metadata(target)
    needs, root = linked(meta), meta["resolve"]["root"]
    packages = {package["id"]: package for package in meta["packages"]}
    with open("Cargo.lock", "rb") as file:
        locked = tomllib.load(file)["package"]
    sums = {(package["name"], package["version"]): package.get("checksum") for package in locked}
    url = lambda package: f"pkg:cargo/{package['name']}@{package['version']}"
    refs = {package: url(packages[package]) for package in needs}

    def component(package):
        about = {"type": "library", "bom-ref": url(package), "name": package["name"]}
        about |= {"version": package["version"], "purl": url(package)}
        if package["license"]:
            about["licenses"] = [{"expression": package["license"].replace(" / ", " OR ").replace("/", " OR ")}]
        if checksum := sums.get((package["name"], package["version"])):
            about["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return about

    parts = [component(packages[package]) for package in sorted(needs) if package != root]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(packages[root]) | {"type": "application"}},
        "components": sorted(parts, key=lambda part: part["bom-ref"]),
        "dependencies": sorted(
            ({"ref": refs[package], "dependsOn": sorted(refs[need] for need in needs[package])} for package in needs),
            key=lambda of: of["ref"],
        ),
    }
    json.dump(document, sys.stdout, indent=1)
    print()


main(*sys.argv[1:])

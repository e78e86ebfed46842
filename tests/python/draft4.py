"""Asks an independent implementation of JSON Schema draft-04, the one that Kong reads, about a schema.

Reads {"schema": ..., "documents": [...]} and prints a JSON list: for each document, whether it is valid. Fails on a
schema that draft-04 doesn't allow.
"""

import json
import sys

import jsonschema

question = json.load(sys.stdin)
schema = question["schema"]
assert schema["$schema"] == "http://json-schema.org/draft-04/schema#", schema["$schema"]
jsonschema.Draft4Validator.check_schema(schema)
validator = jsonschema.Draft4Validator(schema)
json.dump([validator.is_valid(document) for document in question["documents"]], sys.stdout)

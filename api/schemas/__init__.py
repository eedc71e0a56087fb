"""The API's shapes on the wire, a file for each noun: pydantic ends here, values go on as frozen dataclasses."""

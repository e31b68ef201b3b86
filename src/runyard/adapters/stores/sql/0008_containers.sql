-- How a release's workers run as containers, as JSON (`specs.py`); null for processes.

alter table releases add column container text;
alter table workers add column container text;

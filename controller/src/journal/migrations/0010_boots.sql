-- How the boots of each resource ended, as JSON: what pauses one that is broken.
CREATE TABLE boots (
    resource TEXT PRIMARY KEY NOT NULL,
    boots TEXT NOT NULL
);

-- What every test finds: as after the migrations of a real project.
CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE orders (
    id serial PRIMARY KEY,
    customer int NOT NULL REFERENCES customers ON DELETE CASCADE,
    euros numeric NOT NULL CHECK (euros > 0)
);
INSERT INTO customers (name) VALUES ('ada'), ('grace');

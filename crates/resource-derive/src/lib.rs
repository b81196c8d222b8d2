//! derive(Resource): one annotated struct becomes one static table

//! Resource tables: fields, kinds, checks, filters, pages; pure

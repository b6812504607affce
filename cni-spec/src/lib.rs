//! The Container Network Interface protocol as types: requests, results, errors, versions

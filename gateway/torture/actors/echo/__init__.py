"""The actor that torture and the tests wake, put to sleep and kill."""

//! Parts of a tool's answer in JSON. What isn't there is empty: whoever needs it says so.

use serde_json::Value;

/// The text at a JSON pointer, or nothing.
pub fn text_at(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The list at a JSON pointer, or an empty one.
pub fn list_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

"""From calibration text to statistics of what linears receive; here sinks become weights of tokens.

`text` has the text and the states in which a model sees it; `sink_profiles` the attention mass of its tokens;
`token_weights` how much every token counts, the choices of tokens included; `input_statistics` what is summed
over tokens; `dense_statistics` does it for many choices in one pass. Open `token_weights` first.
"""

// Search shows an excerpt of every page, which it fetches; a page opened from a folder may fetch nothing.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

module.exports = {
  root: true,
  extends: ['html-validate:recommended'],
  rules: {
    // Matters of taste.
    'doctype-style': 'off',
    'no-trailing-whitespace': 'off',
    'long-title': 'off',
    // Each button of ours sends its form, and one name tells which of them was pressed.
    'no-implicit-button-type': 'off',
    'form-dup-name': 'off',
    // Only where a person asked for it, and where scripts do not run.
    'meta-refresh': 'off',
    // A box that scrolls inside itself takes focus, and is no part of the outline.
    'prefer-native-element': ['error', { exclude: ['region'] }],
  },
};
